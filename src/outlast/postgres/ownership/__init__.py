"""One owner of a name at a time: an advisory lock, and epochs that fence the owner before."""
