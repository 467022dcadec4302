"""Ray Data and Ray Serve.

Install it with `pip install "encort[ray]"`:

    import ray
    from encort.integrations.ray import embed

    ds = embed(ray.data.read_parquet("s3://bucket/texts"), "s3://bucket/my.bundle", num_cpus=2, actors=(1, 8))
    ds.write_parquet("s3://bucket/vectors")

`encort.integrations.ray.serving` has the deployment for Ray Serve.

Reading order: `data`, `serving`.
"""

from encort.runtime.common.extras import require

require("encort.integrations.ray", "ray", "ray", "pyarrow")

from encort.integrations.ray.data import Classify, Embed, Score, Tag, embed, run  # noqa: E402 - after the check

__all__ = ["Classify", "Embed", "Score", "Tag", "embed", "run"]
