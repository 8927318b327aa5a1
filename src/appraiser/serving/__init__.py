"""The service: an HTTP API and a web page over one loaded model."""
