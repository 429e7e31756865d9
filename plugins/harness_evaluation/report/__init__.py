"""`harness report`: one HTML file to send on. `page` puts it together; `forest`, `runs` and `items` make its parts."""
