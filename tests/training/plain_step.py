"""The step of `one_step.py` written down once more in plain TensorFlow, with nothing of `gan` and `gradients`."""

import numpy as np
import tensorflow as tf
from one_step import CRITIC_UPDATES, EPSILON, GRID_WEIGHT, RATE, images, networks


def run():
    generator, critic, perceptual_loss = networks()
    blurred, sharp = images()
    before = generator.get_weights() + critic.get_weights()
    for _ in range(CRITIC_UPDATES):
        with tf.GradientTape() as outer:
            # As plain as can be: the generator anew each time, one image at a time.
            restored = _without_moving_the_statistics(generator, blurred)
            penalties = []
            for epsilon, of_sharp, of_restored in zip(EPSILON[:, 0, 0, 0], sharp, restored.numpy(), strict=True):
                point = tf.Variable((epsilon * of_sharp + (1 - epsilon) * of_restored)[None])
                with tf.GradientTape() as inner:
                    score = tf.reduce_mean(critic(point))
                gradient = tf.reshape(inner.gradient(score, point), [-1])
                penalties.append((tf.norm(gradient) - 1) ** 2)
            penalty = sum(penalties) / len(penalties)
            loss = tf.reduce_mean(critic(restored)) - tf.reduce_mean(critic(sharp)) + 10 * penalty
        weights = critic.trainable_variables
        for weight, gradient in zip(weights, outer.gradient(loss, weights), strict=True):
            weight.assign_sub(RATE * gradient)
    result = {"critic_loss": loss, "gradient_penalty": penalty}

    with tf.GradientTape() as tape:
        restored = generator(blurred, training=True)
        adversarial = -tf.reduce_mean(critic(restored))
        of_sharp, of_restored = perceptual_loss.features(sharp), perceptual_loss.features(restored)
        perceptual = tf.reduce_mean((of_sharp - of_restored) ** 2)
        pixel = tf.reduce_mean(tf.abs(sharp - restored))
        flat = 127.5 * (restored - sharp)[0]  # one of two windows
        phases = tf.stack([tf.reduce_mean(flat[i::4, j::4], (0, 1)) for i in range(4) for j in range(4)])
        grid = tf.reduce_mean((phases - tf.reduce_mean(phases, 0)) ** 2) / 2
        loss = adversarial + 100 * perceptual + 0.5 * pixel + GRID_WEIGHT * grid
    weights = generator.trainable_variables
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        weight.assign_sub(RATE * gradient)
    result |= {
        "generator_loss": loss,
        "adversarial_loss": adversarial,
        "perceptual_loss": perceptual,
        "pixel_loss": pixel,
        "grid_loss": grid,
    }
    result = {name: value.numpy() for name, value in result.items()}
    for number, (old, new) in enumerate(zip(before, generator.get_weights() + critic.get_weights(), strict=True)):
        result[f"{number}_weight"], result[f"{number}_change"] = new, new - old
    return result


def _without_moving_the_statistics(generator, blurred):
    state = [np.array(variable) for variable in generator.non_trainable_variables]
    restored = generator(blurred, training=True)
    for variable, value in zip(generator.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return restored
