"""Gradients on TensorFlow, JAX and PyTorch: what the training step asks of a backend itself.

The training step is written once, in terms of Keras variables that are read and assigned. What the three backends do
not share is here: how a gradient is taken, and where the variables live while a compiled step runs.
"""

import contextlib
import functools

from deblur_gan.backend import keras

_BACKEND = keras.backend.backend()
if _BACKEND == "tensorflow":
    import tensorflow as tf
elif _BACKEND == "jax":
    import jax
elif _BACKEND == "torch":
    import torch
    from torch._inductor import cpp_builder
    from torch.fx.experimental import proxy_tensor


def require_backend():
    """Raises ImportError if the backend of Keras cannot train: the module itself is imported on every backend."""
    if _BACKEND not in ("tensorflow", "jax", "torch"):
        raise ImportError(f"KERAS_BACKEND={_BACKEND!r}: training needs tensorflow, jax or torch")


def step(function):
    """Makes the `train_step` or `test_step` that `fit` and `evaluate` of this backend call.

    JAX hands the step all variables as arrays and wants the new ones back; the others let it assign in place.

    Args:
        function: `function(model, data) -> logs`, which reads and assigns the variables of `model`, of its metrics
            and of `model.optimizer`.

    Returns:
        The method to put into a `keras.Model`.
    """
    if _BACKEND == "jax":

        @functools.wraps(function)
        def stateless(model, state, data):
            optimizer = [model.optimizer.variables] if len(state) == 4 else []
            groups = [
                model.trainable_variables,
                model.non_trainable_variables,
                *optimizer,
                model.metrics_variables,
            ]
            mapping = [
                pair for group, values in zip(groups, state, strict=True) for pair in zip(group, values, strict=True)
            ]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                logs = function(model, data)
            return logs, tuple([scope.get_current_value(variable) for variable in group] for group in groups)

        return stateless

    if _BACKEND == "torch":
        # The graph is recorded where a gradient is asked for and nowhere else.
        return torch.no_grad()(function)

    return function


def forward(model, inputs, compiled=False):
    """Calls a model in training mode once, and keeps what is needed to differentiate that call later.

    Batch statistics and dropout seeds move on by one step.

    Args:
        model: `keras.Model` of one input and one output.
        inputs: tensor.
        compiled: bool, whether PyTorch compiles call and gradient, once for each shape of `inputs`; the model must be
            one of `require_compilable`. The other backends compile whole steps.

    Returns:
        `(outputs, pull_back)`. `pull_back(gradient)` takes the gradient of a loss with respect to `outputs` to its
        gradients with respect to `model.trainable_variables`; it can be called once.
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
            # Copies: the variables are assigned before the gradient reads what it was called with.
            state = [variable.value.clone() for variable in model.non_trainable_variables]
            outputs, *new_state = _compiled(model, weights, state, inputs)(weights, state, inputs)
            for variable, value in zip(model.non_trainable_variables, new_state, strict=True):
                variable.assign(value.detach())
        else:
            outputs = model(inputs, training=True)
    return outputs.detach(), lambda gradient: torch.autograd.grad(outputs, weights, gradient)


def require_compilable(model):
    """Raises `ValueError` if PyTorch cannot compile the training call of a `keras.Model`."""
    if any(getattr(layer, "rate", 0) for layer in model.layers):
        raise ValueError("--jit_compile: PyTorch compiles generators without dropout only; give --dropout 0 with it")
    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        raise ValueError(
            f"--jit_compile: PyTorch finds no C++ compiler, such as g++ ({type(error).__name__})"
        ) from None


def _compiled(model, weights, state, inputs):
    """Compiles a model's call in training mode with Inductor; the model itself remembers it, for each shape of inputs.

    Keras' layers are run once, to record the operations they come down to: `torch.compile` given the layers
    themselves breaks off at each and compiles next to nothing.

    Returns:
        `function(weights, state, inputs) -> [outputs, *new_state]`.
    """
    of_shapes = vars(model).setdefault("_compiled_calls", {})
    if inputs.shape not in of_shapes:

        def call(weights, state, inputs):
            outputs, new_state = model.stateless_call(weights, state, inputs, training=True)
            return [outputs, *new_state]

        with torch.no_grad():
            recorded = proxy_tensor.make_fx(call)([weight.detach() for weight in weights], state, inputs)
        for node in reversed(recorded.graph.find_nodes(op="call_function", target=torch.ops.aten.clone.default)):
            # Keras copies what a convolution reads, twice; Inductor brings it into the order of axes that it wants.
            if all(user.target is torch.ops.aten.convolution.default for user in node.users):
                node.replace_all_uses_with(node.args[0])
                recorded.graph.erase_node(node)
        recorded.recompile()
        of_shapes[inputs.shape] = torch.compile(recorded)
    return of_shapes[inputs.shape]


def of_inputs(function, inputs):
    """Differentiates a function with respect to its input tensor.

    The gradient can itself be differentiated by `of_weights`, as the gradient penalty needs.

    Args:
        function: takes `inputs` and returns `(value, extra)`: a scalar to differentiate, and anything.
        inputs: float tensor.

    Returns:
        `(value, extra, gradient)`, the gradient of the shape of `inputs`.
    """
    if _BACKEND == "tensorflow":
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            value, extra = function(inputs)
        return value, extra, tape.gradient(value, inputs)

    if _BACKEND == "jax":
        (value, extra), gradient = jax.value_and_grad(function, has_aux=True)(inputs)
        return value, extra, gradient

    differentiated_again = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        value, extra = function(inputs)
        (gradient,) = torch.autograd.grad(value, inputs, create_graph=differentiated_again)
    return value, extra, gradient


def of_weights(function, model):
    """Differentiates a function with respect to the weights of a model that it calls.

    Args:
        function: takes nothing and returns `(value, extra)`: a scalar to differentiate, and a tensor or a structure
            of tensors. It may assign no variable, and read none but those of `model`.
        model: `keras.Model`.

    Returns:
        `(value, extra, gradients)`, one gradient for each of `model.trainable_variables`, zero for
        those that the function does not depend on.
    """
    if _BACKEND == "tensorflow":
        with tf.GradientTape() as tape:
            value, extra = function()
        weights = model.trainable_variables
        found = zip(weights, tape.gradient(value, weights), strict=True)
        return (
            value,
            extra,
            [keras.ops.zeros_like(weight) if gradient is None else gradient for weight, gradient in found],
        )

    if _BACKEND == "jax":
        current = [(variable, variable.value) for variable in model.non_trainable_variables]

        def of(weights):
            mapping = current + list(zip(model.trainable_variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return function()

        weights = [variable.value for variable in model.trainable_variables]
        (value, extra), gradients = jax.value_and_grad(of, has_aux=True)(weights)
        return value, extra, gradients

    with torch.enable_grad():
        value, extra = function()
        weights = [variable.value for variable in model.trainable_variables]
        gradients = torch.autograd.grad(value, weights, materialize_grads=True)
    return value.detach(), keras.tree.map_structure(lambda tensor: tensor.detach(), extra), gradients


def apply(optimizer, gradients, variables):
    """Lets an optimizer take one step.

    Args:
        optimizer: built `keras.optimizers.Optimizer`.
        gradients: list of tensors, one for each variable, of the mean loss over the images of this device. Several
            devices with as many images each take the step that one device takes with all the images.
        variables: list of the Keras variables that `optimizer` was built for.
    """
    if _BACKEND == "jax":
        # Loss scaling decides inside `lax.cond` whether to step, which allows no assignment.
        new_values, new_state = optimizer.stateless_apply(
            [variable.value for variable in optimizer.variables],
            gradients,
            [variable.value for variable in variables],
        )
        for variable, value in zip([*variables, *optimizer.variables], [*new_values, *new_state], strict=True):
            variable.assign(value)
        return

    if _BACKEND == "tensorflow":
        # Keras' optimizers add up what the devices hand them.
        devices = tf.distribute.get_strategy().num_replicas_in_sync
        if devices > 1:
            gradients = [gradient / devices for gradient in gradients]
    optimizer.apply(gradients, variables)


def uniform(n_images, seed):
    """Draws one number for each image, the same whether one device holds all the images or several a part each.

    Args:
        n_images: int or scalar integer tensor, the images on this device.
        seed: `keras.random.SeedGenerator`, or int to draw the same numbers each time.

    Returns:
        float32 tensor `(n_images, 1, 1, 1)`, uniform in [0, 1).
    """
    if _BACKEND != "tensorflow":
        return keras.random.uniform((n_images, 1, 1, 1), seed=seed)
    context = tf.distribute.get_replica_context()
    numbers = keras.random.uniform((n_images * context.num_replicas_in_sync, 1, 1, 1), seed=seed)
    first = context.replica_id_in_sync_group * n_images
    return numbers[first : first + n_images]


@contextlib.contextmanager
def devices(shared, building=False):
    """Decides, while it lasts, whether models live and train on all devices of this machine or on one.

    Args:
        shared: bool, whether every batch is shared among all GPUs (among all CPU devices where there are none).
        building: bool, whether models and optimizers are built in it; `fit` runs in one that does not build.

    Yields:
        int, the devices that share a batch.

    Raises:
        ValueError: if `shared` is asked of PyTorch.
    """
    if shared and _BACKEND == "torch":
        raise ValueError("--multi_gpu: several GPUs need KERAS_BACKEND=tensorflow or jax")
    n_devices = len(keras.distribution.list_devices()) if shared else 1
    if _BACKEND == "jax":
        before = keras.distribution.distribution()
        # Several processes each read their own share of a batch, as `TrainingSet` gives it.
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
