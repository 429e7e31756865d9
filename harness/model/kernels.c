/* Functions of a decoder layer on bfloat16, each in one pass over memory; kernels.py compiles and describes them.

   Numbers are rounded to bfloat16 where transformers rounds them, and summed in float32. Rows are shared out to `threads`
   threads; each is computed by one thread in one order, so that results do not depend on the number of threads. */

#include <stdint.h>
#include <math.h>

typedef uint16_t bf16;
typedef int64_t i64;
#define FEW 16384 /* numbers for which no second thread is woken */
#define EACH(i, count) _Pragma("omp simd") for (i64 i = 0; i < (count); i++)

typedef union { float number; uint32_t bits; } word;

static inline float wide(bf16 x) { word w = {.bits = (uint32_t)x << 16}; return w.number; }

static inline bf16 narrow(float x) { /* to the nearest, ties to even */
    word w = {.number = x};
    uint32_t near = (w.bits + 0x7fff + ((w.bits >> 16) & 1)) >> 16;
    return x != x ? 0x7fc0 : (bf16)near;
}

static inline float rounded(float x) { return wide(narrow(x)); }

/* Cephes' expf, within 2 units in the last place; 0 and infinity beyond what float32 holds. */
static inline float exponential(float x) {
    float kept = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = (kept * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = kept - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    word power = {.bits = (uint32_t)((int32_t)n + 127) << 23};
    float result = p * power.number;
    result = x < -87.0f ? 0.0f : result;
    return x > 88.0f ? INFINITY : result;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

/* y = scale * x / rms(x), [n, h]; with `early` the quotient is rounded before it is scaled. */
void rms_norm(const bf16 *x, const float *scale, bf16 *y, float *inverse, i64 n, i64 h, float eps, int early,
              int threads) {
#pragma omp parallel for num_threads(threads) if (n * h > FEW)
    for (i64 row = 0; row < n; row++) {
        const bf16 *from = x + row * h;
        bf16 *to = y + row * h;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (i64 i = 0; i < h; i++) sum += wide(from[i]) * wide(from[i]);
        float r = 1.0f / sqrtf(sum / (float)h + eps);
        inverse[row] = r;
        if (early)
            EACH(i, h) to[i] = narrow(rounded(wide(from[i]) * r) * scale[i]);
        else
            EACH(i, h) to[i] = narrow(wide(from[i]) * r * scale[i]);
    }
}

void rms_norm_backward(const bf16 *grad, const bf16 *x, const float *scale, const float *inverse, bf16 *out, i64 n, i64 h,
                       int early, int threads) {
#pragma omp parallel for num_threads(threads) if (n * h > FEW)
    for (i64 row = 0; row < n; row++) {
        const bf16 *g = grad + row * h, *from = x + row * h;
        bf16 *to = out + row * h;
        float r = inverse[row], dot = 0.0f;
        if (early) {
#pragma omp simd reduction(+ : dot)
            for (i64 i = 0; i < h; i++) dot += rounded(wide(g[i]) * scale[i]) * wide(from[i]);
            float back = dot * r * r * r / (float)h;
            EACH(i, h) to[i] = narrow(rounded(wide(g[i]) * scale[i]) * r - wide(from[i]) * back);
        } else {
#pragma omp simd reduction(+ : dot)
            for (i64 i = 0; i < h; i++) dot += wide(g[i]) * scale[i] * wide(from[i]);
            float back = dot * r * r * r / (float)h;
            EACH(i, h) to[i] = narrow(wide(g[i]) * scale[i] * r - wide(from[i]) * back);
        }
    }
}

/* y = silu(gate) * up, [n, h]; the rows of gate and up begin `step` numbers apart. */
void swiglu(const bf16 *gate, const bf16 *up, bf16 *y, i64 n, i64 h, i64 gate_step, i64 up_step, int threads) {
#pragma omp parallel for num_threads(threads) if (n * h > FEW)
    for (i64 row = 0; row < n; row++)
        EACH(i, h) {
            float z = wide(gate[row * gate_step + i]);
            y[row * h + i] = narrow(rounded(z * sigmoid(z)) * wide(up[row * up_step + i]));
        }
}

void swiglu_backward(const bf16 *grad, const bf16 *gate, const bf16 *up, bf16 *of_gate, bf16 *of_up, i64 n, i64 h,
                     i64 gate_step, i64 up_step, int threads) {
#pragma omp parallel for num_threads(threads) if (n * h > FEW)
    for (i64 row = 0; row < n; row++)
        EACH(i, h) {
            float g = wide(grad[row * h + i]), z = wide(gate[row * gate_step + i]), s = sigmoid(z);
            float of_silu = rounded(g * wide(up[row * up_step + i]));
            of_up[row * h + i] = narrow(g * rounded(z * s));
            of_gate[row * h + i] = narrow(of_silu * s * (1.0f + z * (1.0f - s)));
        }
}

/* Rotary embedding of x [n, heads, d] by the angles of its position, [n or one of `period`, d]; back: its gradient. */
void rotary(const bf16 *x, const bf16 *cosine, const bf16 *sine, bf16 *y, i64 n, i64 period, i64 heads, i64 d, int back,
            int threads) {
    i64 half = d / 2;
#pragma omp parallel for num_threads(threads) if (n * heads * d > FEW)
    for (i64 row = 0; row < n * heads; row++) {
        const bf16 *c = cosine + row / heads % period * d, *s = sine + row / heads % period * d, *from = x + row * d;
        bf16 *to = y + row * d;
        EACH(i, half) {
            float a = wide(from[i]), b = wide(from[i + half]);
            float across = back ? rounded(b * wide(s[i + half])) : -rounded(b * wide(s[i]));
            float other = back ? -rounded(a * wide(s[i])) : rounded(a * wide(s[i + half]));
            to[i] = narrow(rounded(a * wide(c[i])) + across);
            to[i + half] = narrow(rounded(b * wide(c[i + half])) + other);
        }
    }
}

/* Softmax of scores [rows, keys] where row i sees the first `first + i % queries + 1` keys; 0 for the others. */
void causal_softmax(float *scores, bf16 *out, i64 rows, i64 keys, i64 queries, i64 first, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * keys > FEW) schedule(static, 16)
    for (i64 row = 0; row < rows; row++) {
        float *from = scores + row * keys;
        bf16 *to = out + row * keys;
        i64 seen = first + row % queries + 1;
        float most = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : most)
        for (i64 i = 0; i < seen; i++) most = from[i] > most ? from[i] : most;
#pragma omp simd reduction(+ : sum)
        for (i64 i = 0; i < seen; i++) sum += from[i] = exponential(from[i] - most);
        float share = 1.0f / sum;
        EACH(i, seen) to[i] = narrow(from[i] * share);
        EACH(i, keys - seen) to[seen + i] = 0;
    }
}

/* log softmax(logits [n, v])[target] and minus its gradient: softmax(logits), less 1 at the target. */
void target_logprobs(const bf16 *logits, const i64 *target, float *logprobs, bf16 *minus, i64 n, i64 v, int threads) {
#pragma omp parallel for num_threads(threads) if (n * v > FEW)
    for (i64 row = 0; row < n; row++) {
        const bf16 *from = logits + row * v;
        bf16 *to = minus + row * v;
        float most = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : most)
        for (i64 i = 0; i < v; i++) most = wide(from[i]) > most ? wide(from[i]) : most;
#pragma omp simd reduction(+ : sum)
        for (i64 i = 0; i < v; i++) sum += exponential(wide(from[i]) - most);
        float log_sum = most + logf(sum);
        EACH(i, v) to[i] = narrow(exponential(wide(from[i]) - log_sum));
        float chosen = wide(from[target[row]]) - log_sum;
        logprobs[row] = chosen;
        to[target[row]] = narrow(exponential(chosen) - 1.0f);
    }
}
