"""Operations: the view that operators have of the server, and their hands on it.

Reading order:

1. `record`: what is known of one request.
2. `metrics`, `te_metrics`, `access_log`, `tracing`: where it is counted and written.
3. `monitor`: the middleware that makes the record of every request.
4. `proof`: golden vectors before a model serves; `info` tells what they showed.
5. `drift`: a share of the live requests, compared with fp32.
6. `shared`: what the worker processes of one server tell each other.
7. `reload`, `admin`: another bundle for the name of a model, without a gap.
"""
