"""What is learnt from: cleaning, decontamination, the validation split and the mixture, in the order of `pipeline`."""
