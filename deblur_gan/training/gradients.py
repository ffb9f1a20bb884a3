"""Gradients on TensorFlow, JAX and PyTorch, the only part of a training step that differs between the backends.

The training step is written once, and reads and assigns Keras variables. This file takes its gradients, and decides
where the variables live while a compiled step runs.
"""

import contextlib
import functools
import itertools

from deblur_gan.backend import keras

_BACKEND = keras.backend.backend()
if _BACKEND == "tensorflow":
    import tensorflow as tf
elif _BACKEND == "jax":
    import jax
elif _BACKEND == "torch":
    import torch


def require_backend():
    """Raises `ImportError` if Keras' backend cannot train; the module itself can be imported on every backend."""
    if _BACKEND not in ("tensorflow", "jax", "torch"):
        raise ImportError(f"KERAS_BACKEND={_BACKEND!r}: training needs tensorflow, jax or torch")


def step(function):
    """Makes the `train_step` or `test_step` of this backend from a method `function(model, data) -> logs`.

    On JAX a step receives all variables as arrays and returns the new ones; on the others it assigns in place.
    """
    if _BACKEND == "jax":

        @functools.wraps(function)
        def stateless(model, state, data):
            optimizer = [model.optimizer.variables] if len(state) == 4 else []
            groups = [model.trainable_variables, model.non_trainable_variables, *optimizer, model.metrics_variables]
            pairs = (zip(*group_and_values, strict=True) for group_and_values in zip(groups, state, strict=True))
            with keras.StatelessScope(state_mapping=itertools.chain(*pairs)) as scope:
                logs = function(model, data)
            return logs, tuple([scope.get_current_value(variable) for variable in group] for group in groups)

        return stateless

    if _BACKEND == "torch":
        # A graph is recorded only inside the functions below.
        return torch.no_grad()(function)

    return function


def forward(model, inputs, compiled=False):
    """Calls a model in training mode once, and returns `(outputs, vjp)`, with the vector-Jacobian product of that call.

    `vjp(gradient)` maps the gradient of a loss with respect to `outputs` to a list of gradients with respect to
    `model.trainable_variables`; it can be called once. Batch statistics and dropout seeds advance by one step.
    With `compiled` PyTorch compiles call and gradient for each shape of inputs; the other backends compile whole steps.
    """
    if _BACKEND == "tensorflow":
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
        return outputs, lambda gradient: tape.gradient(outputs, model.trainable_variables, gradient)

    if _BACKEND == "jax":
        state = [variable.value for variable in model.non_trainable_variables]

        def call(weights):
            return model.stateless_call(weights, state, inputs, training=True)

        weights = [variable.value for variable in model.trainable_variables]
        outputs, transposed, new_state = jax.vjp(call, weights, has_aux=True)
        for variable, value in zip(model.non_trainable_variables, new_state, strict=True):
            variable.assign(value)
        return outputs, lambda gradient: transposed(gradient)[0]

    weights = [variable.value for variable in model.trainable_variables]
    with torch.enable_grad():
        if compiled:
            from deblur_gan.training import torch_compile

            # Copies, because the variables are assigned before the gradient reads their former values.
            state = [variable.value.clone() for variable in model.non_trainable_variables]
            call = torch_compile.compiled_call(model, weights, state, inputs)
            outputs, *new_state = call(weights, state, inputs)
            for variable, value in zip(model.non_trainable_variables, new_state, strict=True):
                variable.assign(value.detach())
        else:
            _seed_dropout(model)
            outputs = model(inputs, training=True)
    return outputs.detach(), lambda gradient: torch.autograd.grad(outputs, weights, gradient)


def _seed_dropout(model):
    """Seeds the numbers of PyTorch, from which Keras' dropout draws there, by the seed of the first dropout layer.

    So `--seed` fixes them, and a resumed run, whose checkpoint has the state of that seed, continues them.
    """
    seeds = [layer.seed_generator for layer in model.layers if isinstance(layer, keras.layers.Dropout) and layer.rate]
    if seeds:
        seed, count = keras.ops.convert_to_numpy(seeds[0].next()).tolist()
        torch.manual_seed(seed << 32 | count)


def of_inputs(function, inputs):
    """Differentiates a function of one tensor: `function(inputs)` returns `(value, extra)`, a scalar and anything else.

    Returns `(extra, gradient)`. `of_weights` can differentiate the gradient again, as the gradient penalty needs.
    """
    if _BACKEND == "tensorflow":
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            value, extra = function(inputs)
        return extra, tape.gradient(value, inputs)

    if _BACKEND == "jax":
        gradient, extra = jax.grad(function, has_aux=True)(inputs)
        return extra, gradient

    differentiated_again = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        value, extra = function(inputs)
        (gradient,) = torch.autograd.grad(value, inputs, create_graph=differentiated_again)
    return extra, gradient


def of_weights(function, model):
    """Differentiates a function with respect to the weights of a model that it calls.

    `function()` returns `(value, extra)`, a scalar to differentiate and a structure of tensors. It may not assign
    variables, nor read others than those of `model`. Returns `(extra, gradients)`, one gradient for each of
    `model.trainable_variables`, zero if the function does not depend on the variable.
    """
    if _BACKEND == "tensorflow":
        with tf.GradientTape() as tape:
            value, extra = function()
        weights = [variable.value for variable in model.trainable_variables]
        return extra, tape.gradient(value, weights, unconnected_gradients="zero")

    if _BACKEND == "jax":
        current = [(variable, variable.value) for variable in model.non_trainable_variables]

        def of(weights):
            mapping = current + list(zip(model.trainable_variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return function()

        weights = [variable.value for variable in model.trainable_variables]
        gradients, extra = jax.grad(of, has_aux=True)(weights)
        return extra, gradients

    with torch.enable_grad():
        value, extra = function()
        weights = [variable.value for variable in model.trainable_variables]
        gradients = torch.autograd.grad(value, weights, materialize_grads=True)
    return keras.tree.map_structure(lambda tensor: tensor.detach(), extra), gradients


def apply(optimizer, gradients, variables):
    """Applies the gradients of the mean loss over the images of this device: one step of a built optimizer.

    If several devices have equally many images each, their step is that of one device with all images.
    """
    if _BACKEND == "jax":
        # Loss scaling steps inside `lax.cond`, in which variables cannot be assigned.
        new_values, new_state = optimizer.stateless_apply(
            [variable.value for variable in optimizer.variables], gradients, [variable.value for variable in variables]
        )
        for variable, value in zip([*variables, *optimizer.variables], [*new_values, *new_state], strict=True):
            variable.assign(value)
        return

    if _BACKEND == "tensorflow":
        # Keras' optimizers add the gradients of all devices.
        devices = tf.distribute.get_strategy().num_replicas_in_sync
        if devices > 1:
            gradients = [gradient / devices for gradient in gradients]
    optimizer.apply(gradients, variables)


def uniform(n_images, seed):
    """Draws float32 `(n_images, 1, 1, 1)`, uniform in [0, 1), for the images on this device.

    The numbers are the same on one device with all images and on several with a part each.
    """
    if _BACKEND != "tensorflow":
        return keras.random.uniform((n_images, 1, 1, 1), seed=seed)
    context = tf.distribute.get_replica_context()
    numbers = keras.random.uniform((n_images * context.num_replicas_in_sync, 1, 1, 1), seed=seed)
    first = context.replica_id_in_sync_group * n_images
    return numbers[first : first + n_images]


@contextlib.contextmanager
def devices(shared, building=False):
    """Places models and training on all devices of this machine or on one; yields the number of those sharing a batch.

    With `shared` all GPUs share every batch (all CPU devices if there is no GPU), which PyTorch refuses by a
    `ValueError`. With `building` the block builds models and optimizers, without it runs `fit`.
    """
    if shared and _BACKEND == "torch":
        raise ValueError("--multi_gpu: several GPUs need KERAS_BACKEND=tensorflow or jax")
    n_devices = len(keras.distribution.list_devices()) if shared else 1
    if _BACKEND == "jax":
        before = keras.distribution.distribution()
        # Each of several processes reads only its own share of a batch from `TrainingSet`.
        sharing = keras.distribution.DataParallel(auto_shard_dataset=False) if shared else None
        keras.distribution.set_distribution(sharing)
        try:
            yield n_devices
        finally:
            keras.distribution.set_distribution(before)
    elif shared and building:
        with tf.distribute.MirroredStrategy().scope():
            yield n_devices
    else:
        yield n_devices
