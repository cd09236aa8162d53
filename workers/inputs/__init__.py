"""Documents from files, also from those that grow."""
