"""The dashboard's routes: a page gathers the API's own answers and hands them to `app.dashboard`. Not in the OpenAPI
document."""
