"""Events in, keys out. A source says only what to look at again; the truth is read from the kernel."""
