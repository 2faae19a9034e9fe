"""The service: API, storage, reports, command line. It never imports `worker`."""
