"""A copy of a model whose variables follow those of the model, averaged over the last steps of training."""

from deblur_gan.backend import keras


class MovingAverage(keras.layers.Layer):
    """The exponential moving average of everything that a model computes with, batch statistics included.

    After `n` updates the next one sets each `average = m * average + (1 - m) * variable`, with
    `m = min(momentum, n / (n + 9))`. So the first update copies the variables, what the model began with is
    forgotten, and the average reaches back over a tenth of the training until `momentum` is reached.

    The statistics of batch normalization belong to the weights they were gathered with: averaged weights with the
    statistics of the last step compute something else. So all of `model.weights` are averaged, trainable or not.

    All its variables are weights of the layer: what saves, restores or hands on the variables of a model that holds
    it, as a JAX training step does, takes the average with it.

    Args:
        model: functional or sequential `keras.Model`, the one to follow. It is copied, not kept.
        momentum: float in (0, 1), the largest share of the old average that an update keeps.

    Attributes:
        model: `keras.Model`, the copy; it holds the average, and before the first update what `model` began with.

    Raises:
        ValueError: if `momentum` is outside (0, 1).

    Reference: Polyak and Juditsky, https://doi.org/10.1137/0330046; the slow beginning is that of
        `tf.train.ExponentialMovingAverage` with `num_updates`.
    """

    def __init__(self, model, momentum):
        if not 0 < momentum < 1:
            raise ValueError(f"momentum={momentum}: must be above 0 and below 1")
        super().__init__(name="moving_average", trainable=False)
        self.momentum = momentum
        self.n_updates = self.add_weight(
            shape=(), initializer="zeros", dtype="int32", trainable=False, name="n_updates"
        )
        self.model = keras.models.clone_model(model)
        self.model.set_weights(model.get_weights())
        self.model.trainable = False
        self.built = True

    def update(self, model):
        """Moves the average towards the variables that `model` has now; part of a training step.

        Args:
            model: the `keras.Model` that was copied.
        """
        n_updates = keras.ops.cast(self.n_updates, "float32")
        momentum = keras.ops.minimum(self.momentum, n_updates / (n_updates + 9.0))
        for average, variable in zip(self.model.weights, model.weights, strict=True):
            average.assign(variable + momentum * (average - variable))
        self.n_updates.assign(self.n_updates + 1)
