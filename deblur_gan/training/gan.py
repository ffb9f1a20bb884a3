"""DeblurGAN: a generator and a critic that are trained against each other.

`DeblurGAN.train_step` is the algorithm, for TensorFlow, JAX and PyTorch alike.
"""

from deblur_gan.backend import keras
from deblur_gan.training import gradients
from deblur_gan.training.losses import gradient_penalty, grid_loss, mean_score, psnr
from deblur_gan.training.moving_average import MovingAverage
from deblur_gan.training.options import PIXEL_LOSSES

# The losses in the order of log.csv and of the curves, with their labels in the line of progress. A terminal of 80
# columns shows those of the generator only.
GENERATOR_LOSSES = {
    "generator_loss": "loss",
    "adversarial_loss": "adv",
    "perceptual_loss": "perc",
    "pixel_loss": "pixel",
    "grid_loss": "grid",
}
CRITIC_LOSSES = {"critic_loss": "critic", "gradient_penalty": "penalty"}
LOSSES = GENERATOR_LOSSES | CRITIC_LOSSES


class DeblurGAN(keras.Model):
    """Trains a generator to restore photographs, and a critic to tell restored from sharp ones.

    A step uses one batch of blurred and sharp images: the critic is updated `critic_updates` times, then the generator
    once. All updates of the critic use this same batch, as in the authors' code, and differ only in the points of the
    penalty; Gulrajani et al. draw a new batch for each. The generator does not change while the critic does, so one
    call of it serves the whole step.

    `fit` and `evaluate` take batches `(blurred, sharp)`, both float32 `(B, H, W, 3)` in [-1, 1]. Both log the same
    losses; `evaluate` calls the generator in inference mode and logs the `psnr`, too.

    The critic is always called in inference mode: the penalty is a property of one image, and batch statistics would
    mix the images. A `meudec` critic keeps the statistics of its file.

    Args:
        generator: `keras.Model`, from blurred images to restored ones.
        critic: `keras.Model`, from images to scores `(B, ...)`.
        perceptual_loss: callable `(sharp, restored) -> scalar`, such as `losses.PerceptualLoss()`.
        critic_updates: int, updates of the critic for each update of the generator. With 0 only the generator is
            trained, without adversarial loss.
        penalty_weight: float, weight of the gradient penalty in the critic's loss.
        perceptual_weight: float, weight of the perceptual loss in the generator's loss.
        pixel_weight: float, weight of the pixel loss in the generator's loss.
        pixel_loss: "l1" or "l2", the mean absolute or the mean squared difference of the pixels.
        grid_weight: float, weight of `losses.grid_loss` in the generator's loss; with 0 it is not computed.
        ema: float in [0, 1), momentum of the moving average of the generator, see `averaged_generator`; 0 for none.
        seed: int for the points of the penalty. The dropout layers of the generator have seeds of their own, which
            `keras.utils.set_random_seed` determines when the generator is built.

    Raises:
        ValueError: if `critic_updates` or a weight is below 0, `ema` is outside [0, 1), or `pixel_loss` is unknown.

    Example:
        >>> from deblur_gan import critic_model, generator_model
        >>> critic = critic_model("paper", ndf=2, image_shape=(16, 16, 3))
        >>> loss = lambda sharp, restored: keras.ops.mean(keras.ops.square(sharp - restored))
        >>> gan = DeblurGAN(generator_model("paper", ngf=2, n_blocks=1), critic, loss, critic_updates=1)
        >>> gan.compile(keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4))
        >>> images = keras.ops.zeros((2, 16, 16, 3))
        >>> sorted(gan.fit(images, images, verbose=0).history)[:2]
        ['adversarial_loss', 'critic_loss']

    Reference: https://arxiv.org/abs/1711.07064, section 3; Gulrajani et al., https://arxiv.org/abs/1704.00028,
        algorithm 1
    """

    def __init__(
        self,
        generator,
        critic,
        perceptual_loss,
        *,
        critic_updates=5,
        penalty_weight=10.0,
        perceptual_weight=100.0,
        pixel_weight=0.0,
        pixel_loss="l1",
        grid_weight=0.0,
        ema=0.0,
        seed=None,
    ):
        gradients.require_backend()
        super().__init__(name="deblur_gan")
        self.generator = generator
        self.critic = critic
        self.perceptual_loss = perceptual_loss
        self.critic_updates = critic_updates
        self.penalty_weight = penalty_weight
        self.perceptual_weight = perceptual_weight
        self.pixel_weight = pixel_weight
        self.pixel_loss = pixel_loss
        self.grid_weight = grid_weight
        for name in ("critic_updates", "penalty_weight", "perceptual_weight", "pixel_weight", "grid_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be 0 or more")
        if not 0 <= ema < 1:
            raise ValueError(f"ema={ema}: must be 0 or more and below 1")
        if pixel_loss not in PIXEL_LOSSES:
            raise ValueError(f"pixel_loss={pixel_loss!r}: must be one of {', '.join(PIXEL_LOSSES)}")
        self.moving_average = MovingAverage(generator, ema) if ema else None
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.trackers = {name: keras.metrics.Mean(name=name) for name in (*LOSSES, "psnr")}
        self.built = True

    def compile(self, generator_optimizer, critic_optimizer, **kwargs):
        """Configures training.

        The optimizer of a network that computes in float16 is given dynamic loss scaling; bfloat16 needs none.

        Args:
            generator_optimizer: `keras.optimizers.Optimizer` of the generator.
            critic_optimizer: another one, of the critic.
            **kwargs: `jit_compile`, `run_eagerly`, `steps_per_execution` of `keras.Model.compile`. On PyTorch,
                `jit_compile=True` compiles the generator's call and gradient.

        Raises:
            ValueError: if PyTorch is to compile a generator with dropout, or has no C++ compiler.
        """
        # On PyTorch Keras would compile the whole step, which then takes longer.
        self.compiles_generator = keras.backend.backend() == "torch" and kwargs.pop("jit_compile", None) is True
        if self.compiles_generator:
            from deblur_gan.training import torch_compile

            torch_compile.require_compilable(self.generator)
        super().compile(optimizer=None, **kwargs)
        self.generator_optimizer = _built(generator_optimizer, self.generator)
        self.critic_optimizer = _built(critic_optimizer, self.critic)
        self.optimizer = _BothOptimizers(self.generator_optimizer, self.critic_optimizer)

    def call(self, blurred, training=False):
        return self.generator(blurred, training=training)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Does nothing, as the model is built; on several devices Keras would read a batch here and not train on it."""

    @property
    def averaged_generator(self):
        """`keras.Model`, the generator to restore with and to save: with `ema` its moving average, else the generator.

        The average is a model of its own, so it can be called and saved during training.
        """
        return self.moving_average.model if self.moving_average else self.generator

    @property
    def random_state(self):
        """List of variables, the state of all random numbers: the penalty's, then each dropout layer's.

        `save_weights` does not save them. `[v.numpy() for v in gan.random_state]` reads them, `v.assign(value)` for
        each restores them.
        """
        weights = {id(weight) for weight in self.weights}
        variables = [self.seed_generator.state, *self.generator.variables, *self.critic.variables]
        return [variable for variable in variables if id(variable) not in weights]

    @gradients.step
    def train_step(self, data):
        """Trains on one batch: `critic_updates` updates of the critic, then one of the generator."""
        blurred, sharp = (keras.ops.convert_to_tensor(images, "float32") for images in data[:2])
        restored, vjp = gradients.forward(self.generator, blurred, self.compiles_generator)
        losses = {name: keras.ops.zeros(()) for name in CRITIC_LOSSES}
        for _ in range(self.critic_updates):
            losses = self.update_critic(sharp, restored)
        return self._logs(sharp, losses | self.update_generator(sharp, restored, vjp))

    def update_critic(self, sharp, restored):
        """Updates the critic once; returns the `critic_losses` before that. No gradient flows into `restored`."""
        epsilon = self.draw_epsilon(sharp, self.seed_generator)
        scale = self.critic_optimizer.scale_loss(1.0)

        def scaled_loss():
            losses = self.critic_losses(sharp, restored, epsilon, scale)
            return scale * losses["critic_loss"], losses

        losses, weight_gradients = gradients.of_weights(scaled_loss, self.critic)
        gradients.apply(self.critic_optimizer, weight_gradients, self.critic.trainable_variables)
        return losses

    def critic_losses(self, sharp, restored, epsilon, scale=1.0):
        """Computes the critic's loss and the gradient penalty in it.

        Args:
            sharp, restored: float32 tensors `(B, H, W, 3)` in [-1, 1].
            epsilon: tensor `(B, 1, 1, 1)`; the penalty is taken at `epsilon * sharp + (1 - epsilon) * restored`.
            scale: the loss scale in use, see `losses.gradient_penalty`.

        Returns:
            dict of float32 scalars: `critic_loss`, `gradient_penalty`.
        """
        # One call for both: a convolution costs less on two images at once than on one twice.
        restored_scores, sharp_scores = keras.ops.split(self.critic(keras.ops.concatenate([restored, sharp])), 2)
        penalty = gradient_penalty(self.critic, epsilon * sharp + (1.0 - epsilon) * restored, scale)
        loss = mean_score(restored_scores) - mean_score(sharp_scores) + self.penalty_weight * penalty
        return {"critic_loss": loss, "gradient_penalty": penalty}

    def draw_epsilon(self, images, seed):
        """Draws the share of the sharp image in each point of the penalty: `(B, 1, 1, 1)`, uniform in [0, 1).

        `seed` is a `keras.random.SeedGenerator`, or an int that gives the same numbers each time.
        """
        return gradients.uniform(keras.ops.shape(images)[0], seed)

    def update_generator(self, sharp, restored, vjp):
        """Updates the generator once, and its moving average; returns the `generator_losses` before that.

        `vjp` is the vector-Jacobian product of the call that gave `restored`, see `gradients.forward`.
        """

        def scaled_loss(restored):
            losses = self.generator_losses(sharp, restored)
            return self.generator_optimizer.scale_loss(losses["generator_loss"]), losses

        losses, gradient = gradients.of_inputs(scaled_loss, restored)
        gradients.apply(self.generator_optimizer, vjp(gradient), self.generator.trainable_variables)
        if self.moving_average:
            self.moving_average.update(self.generator)
        return losses

    def generator_losses(self, sharp, restored):
        """Computes the generator's loss and its terms before they are weighted.

        Args:
            sharp, restored: float32 tensors `(B, H, W, 3)` in [-1, 1].

        Returns:
            dict of float32 scalars, one for each of `GENERATOR_LOSSES`.
        """
        adversarial = -mean_score(self.critic(restored)) if self.critic_updates else keras.ops.zeros(())
        perceptual = self.perceptual_loss(sharp, restored)
        error = keras.ops.abs if self.pixel_loss == "l1" else keras.ops.square
        pixel = keras.ops.mean(error(sharp - restored))
        grid = grid_loss(sharp, restored) if self.grid_weight else keras.ops.zeros(())
        loss = adversarial + self.perceptual_weight * perceptual + self.pixel_weight * pixel + self.grid_weight * grid
        return dict(zip(GENERATOR_LOSSES, (loss, adversarial, perceptual, pixel, grid), strict=True))

    @gradients.step
    def test_step(self, data):
        blurred, sharp = (keras.ops.convert_to_tensor(images, "float32") for images in data[:2])
        restored = self.generator(blurred, training=False)
        losses = {name: keras.ops.zeros(()) for name in CRITIC_LOSSES}
        if self.critic_updates:
            # A seed of its own, so that evaluation does not change the numbers that training draws.
            losses = self.critic_losses(sharp, restored, self.draw_epsilon(sharp, 0))
        losses |= self.generator_losses(sharp, restored)
        return self._logs(sharp, {**losses, "psnr": keras.ops.mean(psnr(sharp, restored))})

    def _logs(self, images, values):
        """Adds the values of a batch to the means of the epoch, and returns those."""
        n_images = keras.ops.shape(images)[0]
        for name, value in values.items():
            self.trackers[name].update_state(value, sample_weight=n_images)
        return {name: self.trackers[name].result() for name in values}


def _built(optimizer, network):
    """Builds an optimizer at once, as a checkpoint is restored only into existing variables."""
    in_float16 = any(layer.compute_dtype == "float16" for layer in network.layers)
    if in_float16 and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(network.trainable_variables)
    return optimizer


class _BothOptimizers:
    """Stands for both optimizers as `model.optimizer`: the variables of both, and one learning rate to set."""

    built = True

    def __init__(self, *optimizers):
        self.optimizers = optimizers

    @property
    def variables(self):
        return [variable for optimizer in self.optimizers for variable in optimizer.variables]

    @property
    def learning_rate(self):
        return self.optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        for optimizer in self.optimizers:
            optimizer.learning_rate = learning_rate
