"""A server on the loopback interface, and the page by which it shows a dataset in the browser."""
