"""A server on the loopback interface, and the page that shows a dataset in the browser."""
