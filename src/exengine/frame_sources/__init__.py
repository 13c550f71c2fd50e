"""Frame sources without a library of their own. Importing this package imports none of them."""
