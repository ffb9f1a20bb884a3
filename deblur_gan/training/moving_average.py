"""The moving average of a model's variables over the last steps of training."""

from deblur_gan.backend import keras


class MovingAverage(keras.layers.Layer):
    """Keeps an exponential moving average of all weights of a model, batch statistics included.

    After `n` updates the next one sets each `average = m * average + (1 - m) * variable`, with
    `m = min(momentum, n / (n + 9))`. So the first update copies the variables and forgets the initial ones, and the
    average covers the last tenth of the training until `m` reaches `momentum`.

    The statistics of batch normalization are averaged as well, because those of the last step would not fit the
    averaged weights.

    All its variables are weights of the layer. So a model that contains it saves and restores the average, and a
    training step on JAX carries it along. `model` is a copy of the model that it follows, with the averaged weights.

    Reference: Polyak and Juditsky, https://doi.org/10.1137/0330046; the slow beginning is that of
        `tf.train.ExponentialMovingAverage` with `num_updates`.
    """

    def __init__(self, model, momentum):
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
        """Moves the average towards the current weights of the model that was copied; part of a training step."""
        n_updates = keras.ops.cast(self.n_updates, "float32")
        momentum = keras.ops.minimum(self.momentum, n_updates / (n_updates + 9.0))
        for average, variable in zip(self.model.weights, model.weights, strict=True):
            average.assign(variable + momentum * (average - variable))
        self.n_updates.assign(self.n_updates + 1)
