"""The label-only attacks of Choquette-Choo et al. 2021 on disjoint blocks: one target, one source model, each with and without MemGuard.

python launch.py --config=configs/label_only.py --workdir=runs/label_only
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg,
        data="/usr/share/datasets/fashion-mnist",
        side=0,
        ndata=2500,
        model="conv",
        depth=1,
        defense="",
        reg_constant=1.0,
        batch_size=100,
        noise=0.5,
        epochs=1000,
        r=9,
        d=1,
        noise_samples=300,
        max_samples=500,
        attacks="bndgac",
    )
    file = arg.data.endswith(".npz")
    return configuration.complete(
        data=dict(name="npz", path=arg.data, shape=(arg.side, arg.side, 1) if arg.side else ())
        if file
        else dict(name="idx", folder=arg.data, examples=4 * arg.ndata),
        design=dict(name="blocks", size=arg.ndata, scored=arg.max_samples, drawn=file),
        model=dict(name=arg.model, depth=arg.depth),
        learner=dict(
            optimizer="adam",
            learning_rate=1e-3,
            epsilon=1e-7,
            batch_size=arg.batch_size,
            epochs=arg.epochs,
            stop=dict(monitor="loss", min_delta=0.005, patience=20),
            validation="nonmembers",
        ),
        query=dict(batch_size=100),
        attacks=dict(gap=dict()),
        run=dict(chunk=1),
    )
