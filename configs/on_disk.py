"""Runs 5 attacks on small CNNs whose images stay on disk, in array_record files.

The pool may be larger than the memory: a batch of images is read and decoded where it is used. What
TensorFlow Datasets has prepared as array_record is read as it is, and so are records of your own
(docs/scale.md says how they are written).

    python launch.py --config=configs/on_disk.py:files=/data/fashion_mnist/3.0.1 --workdir=runs/disk

Time: 141 CPU seconds (116 of them in training), on a machine that others kept busy.

Expected, means over 8 targets with 95% intervals:

                      AUC                     TPR at 1% FPR
    rmia              0.552 [0.547, 0.556]    2.7%
    lira              0.544 [0.539, 0.549]    2.4%
    lira_offline      0.539 [0.534, 0.543]    1.6%
    threshold_loss    0.511 [0.510, 0.512]    1.0%
    gap               0.513 [0.512, 0.515]

Arguments:
    files: a folder, a file or a pattern of array_record files.
    image_key, label_key: the features of a record with the image and with the label.
    examples: the number of first records; 0 for all.
    models, epochs: sizes.
    megabytes: a pool larger than this is streamed in training.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg,
        files="~/tensorflow_datasets/fashion_mnist/3.0.1",
        image_key="image",
        label_key="label",
        examples=10_000,
        models=8,
        epochs=10,
        megabytes=4,
    )
    return configuration.complete(
        data=dict(
            name="array_record",
            files=arg.files,
            image_key=arg.image_key,
            label_key=arg.label_key,
            examples=arg.examples or None,
        ),
        design=dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="small_cnn", num_conv=2),
        learner=dict(optimizer="adam", learning_rate=1e-3, batch_size=100, epochs=arg.epochs),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            lira=dict(variance="shrunk"),
            lira_offline=dict(name="lira", mode="offline"),
            rmia=dict(),
        ),
        run=dict(chunk=1, pool_bytes=arg.megabytes * 2**20),
    )
