"""The frame sources that need no library of their own. Importing this package imports none of them."""
