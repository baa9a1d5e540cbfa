"""What the compiled modules run on: the choice of an instruction set, threads and signals, random numbers."""
