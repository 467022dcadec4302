"""A server over HTTP for the clients of text-embeddings-inference, OpenAI and others.

The walk of a request: `app` finds its route, an `Endpoint` decodes its body, a handler of `routes` gives its texts to
the service of a model from `models`, and `errors` turns what fails into the form that the route's clients expect.
"""
