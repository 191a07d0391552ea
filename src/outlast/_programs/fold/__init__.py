"""`outlast logs fold`: what a program prints, folded, on its way to a file or a pipe."""
