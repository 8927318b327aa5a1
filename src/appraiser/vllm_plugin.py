"""What vLLM calls in each of its processes before it loads a model: entry point `appraiser` of `vllm.general_plugins`.

vLLM knows the architecture (`Phi3VForCausalLM`) but has neither a configuration nor a processor for `phi3_v`: without
this they would come from the model's own folder, as remote code.
"""


def register() -> None:
    """Register our classes with the Auto classes of transformers, and let the processor read as vLLM asks it to.

    Quick after the first call, repeatable, and without vLLM itself.
    """
    import appraiser.phi3_v as phi3_v  # here, not above: looking the plugin up must not load torch

    phi3_v.Phi3VProcessor.reads_tags_alone = True
