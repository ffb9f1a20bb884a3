"""Compiles a generator's training call with PyTorch's Inductor; imported only for `--jit_compile`."""

import torch
from torch._inductor import cpp_builder
from torch.fx.experimental import proxy_tensor

# The compiler is private to PyTorch; with older versions it was not tested.
_OLDEST = (2, 13)


def require_compilable(model):
    """Raises `ValueError` if PyTorch cannot compile the training call of a `keras.Model`."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < _OLDEST:
        raise ValueError(f"--jit_compile: needs PyTorch 2.13 or newer, not {torch.__version__}")
    if any(getattr(layer, "rate", 0) for layer in model.layers):
        raise ValueError("--jit_compile: PyTorch compiles only generators without dropout; add --dropout 0")
    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        raise ValueError(
            f"--jit_compile: PyTorch finds no C++ compiler ({type(error).__name__}); install one, such as g++"
        ) from None


def compiled_call(model, weights, state, inputs):
    """Compiles a model's call in training mode, once for each shape of inputs; the model keeps the compiled functions.

    Keras' layers run once, to record their operations. `torch.compile` of the layers themselves breaks the graph at
    each layer and compiles next to nothing. Returns `function(weights, state, inputs) -> [outputs, *new_state]` of the
    values of the trainable and the non-trainable variables.
    """
    of_shapes = vars(model).setdefault("_compiled_calls", {})
    if inputs.shape not in of_shapes:

        def call(weights, state, inputs):
            outputs, new_state = model.stateless_call(weights, state, inputs, training=True)
            return [outputs, *new_state]

        with torch.no_grad():
            recorded = proxy_tensor.make_fx(call)([weight.detach() for weight in weights], state, inputs)
        for node in reversed(recorded.graph.find_nodes(op="call_function", target=torch.ops.aten.clone.default)):
            # Keras copies the inputs of a convolution twice; Inductor chooses the memory format itself.
            if all(user.target is torch.ops.aten.convolution.default for user in node.users):
                node.replace_all_uses_with(node.args[0])
                recorded.graph.erase_node(node)
        recorded.recompile()
        of_shapes[inputs.shape] = torch.compile(recorded)
    return of_shapes[inputs.shape]
