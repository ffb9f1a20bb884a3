"""DeblurGAN: a generator and a critic that are trained against each other.

`train_step` is the algorithm, for TensorFlow, JAX and PyTorch alike.
"""

from deblur_gan.backend import keras
from deblur_gan.training import gradients
from deblur_gan.training.losses import gradient_penalty, mean_score, psnr
from deblur_gan.training.moving_average import MovingAverage

# What of a pixel's difference is averaged.
PIXEL_LOSSES = {"l1": keras.ops.abs, "l2": keras.ops.square}

_LOGS = (
    "critic_loss",
    "gradient_penalty",
    "generator_loss",
    "adversarial_loss",
    "perceptual_loss",
    "pixel_loss",
    "psnr",
)


class DeblurGAN(keras.Model):
    """Trains a generator to restore photographs, and a critic to tell what it restored from what was sharp.

    One step, on one batch of blurred and sharp images: the critic is updated `critic_updates` times, then the
    generator once. The generator is called once for both, as it does not change while the critic does. `fit` and
    `evaluate` take batches `(blurred, sharp)`, both float32 `(B, H, W, 3)` in [-1, 1]. Both log the same losses,
    `evaluate` those of the generator in inference mode and the `psnr` as well.

    The critic is always called in inference mode: the penalty is a property of one image, which batch statistics
    would tie to the others. A `meudec` critic keeps the statistics that its file brought along.

    Args:
        generator: `keras.Model`, blurred images to restored ones.
        critic: `keras.Model`, images to scores `(B, ...)`.
        perceptual_loss: callable `(sharp, restored) -> scalar`, such as `losses.PerceptualLoss()`.
        critic_updates: int, updates of the critic for each update of the generator. With 0 the generator learns alone:
            there is no adversarial loss either.
        penalty_weight: float, weight of the gradient penalty in the critic's loss.
        perceptual_weight: float, weight of the perceptual loss in the generator's loss.
        pixel_weight: float, weight of the pixel loss in the generator's loss.
        pixel_loss: "l1" or "l2", the mean absolute or the mean squared difference of the pixels.
        ema: float in [0, 1), momentum of the moving average of the generator, see `averaged_generator`; 0 for none.
        seed: int for the points where the penalty is taken; the dropout layers of the generator have seeds of their
            own, which `keras.utils.set_random_seed` decides when the generator is built.

    Raises:
        ValueError: if `critic_updates` or a weight is below 0, `ema` is outside [0, 1), or `pixel_loss` is another one.

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
        ema=0.0,
        seed=None,
    ):
        gradients.require_backend()
        super().__init__(name="deblur_gan")
        numbers = {
            "critic_updates": critic_updates,
            "penalty_weight": penalty_weight,
            "perceptual_weight": perceptual_weight,
            "pixel_weight": pixel_weight,
        }
        for name, number in numbers.items():
            if number < 0:
                raise ValueError(f"{name}={number}: must be 0 or more")
        if not 0 <= ema < 1:
            raise ValueError(f"ema={ema}: must be 0 or more and below 1")
        if pixel_loss not in PIXEL_LOSSES:
            raise ValueError(f"pixel_loss={pixel_loss!r}: must be one of {', '.join(PIXEL_LOSSES)}")
        self.generator = generator
        self.critic = critic
        self.perceptual_loss = perceptual_loss
        self.critic_updates = critic_updates
        self.penalty_weight = penalty_weight
        self.perceptual_weight = perceptual_weight
        self.pixel_weight = pixel_weight
        self.pixel_loss = PIXEL_LOSSES[pixel_loss]
        self.moving_average = MovingAverage(generator, ema) if ema else None
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.trackers = {name: keras.metrics.Mean(name=name) for name in _LOGS}
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
        # Keras would hand PyTorch the whole step, which takes longer compiled than not.
        self.compiles_generator = keras.backend.backend() == "torch" and kwargs.pop("jit_compile", None) is True
        if self.compiles_generator:
            gradients.require_compilable(self.generator)
        super().compile(optimizer=None, **kwargs)
        self.generator_optimizer = _built(generator_optimizer, self.generator)
        self.critic_optimizer = _built(critic_optimizer, self.critic)
        self.optimizer = _BothOptimizers(self.generator_optimizer, self.critic_optimizer)

    def call(self, blurred, training=False):
        return self.generator(blurred, training=training)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Keeps Keras from drawing a batch to build what has been built: on several devices it would not be trained on.

        Keras draws it from a second iterator, which takes what it reads ahead from the batches of a generator as well.
        """

    @property
    def averaged_generator(self):
        """`keras.Model`, what to restore with and to save: the moving average of the generator where there is one.

        Without `ema` it is the generator itself. It is another model than the one that is trained, so that it can be
        called and saved while training goes on.
        """
        return self.moving_average.model if self.moving_average else self.generator

    @property
    def random_state(self):
        """The variables that hold the state of all random numbers: the penalty's, then each dropout layer's.

        They are not in `save_weights`. `[v.numpy() for v in gan.random_state]` saves them, `v.assign(value)` for each
        restores them.
        """
        weights = {id(weight) for weight in self.weights}
        variables = [self.seed_generator.state, *self.generator.variables, *self.critic.variables]
        return [variable for variable in variables if id(variable) not in weights]

    def draw_epsilon(self, images, seed):
        """Draws, for each image, how near to the sharp one the penalty is taken: `(B, 1, 1, 1)`, uniform in [0, 1).

        `seed` is a `keras.random.SeedGenerator`, or an int that gives the same numbers each time.
        """
        return gradients.uniform(keras.ops.shape(images)[0], seed)

    def critic_losses(self, sharp, restored, epsilon, scale=1.0):
        """Computes what the critic minimizes, `critic_loss`, and the `gradient_penalty` in it.

        Args:
            sharp: float32 tensor `(B, H, W, 3)` in [-1, 1].
            restored: tensor of the same shape and range.
            epsilon: tensor `(B, 1, 1, 1)`; the penalty is taken at `epsilon * sharp + (1 - epsilon) * restored`.
            scale: the loss scale in use, see `losses.gradient_penalty`.

        Returns:
            dict of float32 scalars.
        """
        # One call for both: a convolution costs less on two images at once than on one twice.
        restored_scores, sharp_scores = keras.ops.split(self.critic(keras.ops.concatenate([restored, sharp])), 2)
        penalty = gradient_penalty(self.critic, epsilon * sharp + (1.0 - epsilon) * restored, scale)
        loss = mean_score(restored_scores) - mean_score(sharp_scores) + self.penalty_weight * penalty
        return {"critic_loss": loss, "gradient_penalty": penalty}

    def generator_losses(self, sharp, restored):
        """Computes what the generator minimizes, `generator_loss`, and its terms before they are weighted.

        Args:
            sharp: float32 tensor `(B, H, W, 3)` in [-1, 1].
            restored: tensor of the same shape and range.

        Returns:
            dict of float32 scalars: `generator_loss`, `adversarial_loss`, `perceptual_loss`, `pixel_loss`.
        """
        adversarial = -mean_score(self.critic(restored)) if self.critic_updates else keras.ops.zeros(())
        perceptual = self.perceptual_loss(sharp, restored)
        pixel = keras.ops.mean(self.pixel_loss(sharp - restored))
        loss = adversarial + self.perceptual_weight * perceptual + self.pixel_weight * pixel
        return {
            "generator_loss": loss,
            "adversarial_loss": adversarial,
            "perceptual_loss": perceptual,
            "pixel_loss": pixel,
        }

    @gradients.step
    def train_step(self, data):
        blurred, sharp = (keras.ops.convert_to_tensor(images, "float32") for images in data[:2])
        restored, pull_back = gradients.forward(self.generator, blurred, self.compiles_generator)
        losses = {name: keras.ops.zeros(()) for name in ("critic_loss", "gradient_penalty")}
        for _ in range(self.critic_updates):
            losses = self.update_critic(sharp, restored)
        return self._logs(sharp, losses | self.update_generator(sharp, restored, pull_back))

    def update_critic(self, sharp, restored):
        """Lets the critic take one step.

        Args:
            sharp: float32 tensor `(B, H, W, 3)` in [-1, 1].
            restored: tensor of the same shape and range; no gradient flows into it.

        Returns:
            dict, the `critic_losses` before the step.
        """
        epsilon = self.draw_epsilon(sharp, self.seed_generator)
        scale = self.critic_optimizer.scale_loss(1.0)

        def scaled_loss():
            losses = self.critic_losses(sharp, restored, epsilon, scale)
            return scale * losses["critic_loss"], losses

        _, losses, weight_gradients = gradients.of_weights(scaled_loss, self.critic)
        gradients.apply(self.critic_optimizer, weight_gradients, self.critic.trainable_variables)
        return losses

    def update_generator(self, sharp, restored, pull_back):
        """Lets the generator, and its moving average where there is one, take one step.

        Args:
            sharp: float32 tensor `(B, H, W, 3)` in [-1, 1].
            restored: tensor of the same shape and range, what the generator made of the blurred images.
            pull_back: function that takes a gradient with respect to `restored` to those with respect to the weights,
                see `gradients.forward`.

        Returns:
            dict, the `generator_losses` before the step.
        """

        def scaled_loss(restored):
            losses = self.generator_losses(sharp, restored)
            return self.generator_optimizer.scale_loss(losses["generator_loss"]), losses

        _, losses, gradient = gradients.of_inputs(scaled_loss, restored)
        gradients.apply(self.generator_optimizer, pull_back(gradient), self.generator.trainable_variables)
        if self.moving_average:
            self.moving_average.update(self.generator)
        return losses

    @gradients.step
    def test_step(self, data):
        blurred, sharp = (keras.ops.convert_to_tensor(images, "float32") for images in data[:2])
        restored = self.generator(blurred, training=False)
        losses = {name: keras.ops.zeros(()) for name in ("critic_loss", "gradient_penalty")}
        if self.critic_updates:
            # A seed of its own: what training draws does not depend on how often it is evaluated.
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
    """Gives an optimizer its variables at once: a checkpoint is restored only into what exists."""
    in_float16 = any(layer.compute_dtype == "float16" for layer in network.layers)
    if in_float16 and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(network.trainable_variables)
    return optimizer


class _BothOptimizers:
    """What Keras asks of `model.optimizer`: the variables of both, and one learning rate for its callbacks to set."""

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
