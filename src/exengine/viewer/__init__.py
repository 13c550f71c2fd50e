"""Shows a dataset in the browser: a server on the loopback interface, and the page that it serves."""
