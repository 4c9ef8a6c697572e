from collections.abc import Iterator

import numpy as np
import pytest
import torch
from shared_files import reference

from landseer.export.models.cider import (
    EXPECTED_BACKGROUND,
    AttentionalLocalisation,
    CiDeR,
    SelectiveContext,
    SqueezeExcitation,
    drawn_background,
)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # one whose first background is neither 0 nor 1
        yield


def maps(batch: int = 2, channels: int = 16, h: int = 6, w: int = 9) -> torch.Tensor:
    return torch.rand(batch, channels, h, w, generator=torch.Generator().manual_seed(1))


def test_squeeze_and_excitation_equals_the_reference() -> None:
    known = {k: torch.from_numpy(v) for k, v in reference("library_blocks.npz").items()}
    module = SqueezeExcitation(16, reduction=4)
    renamed = {"squeeze": "fc1", "excite": "fc2"}
    module.load_state_dict(
        {
            f"{ours}.{kind}": known[f"se.{theirs}.{kind}"]
            for ours, theirs in renamed.items()
            for kind in ("weight", "bias")
        }
    )
    torch.testing.assert_close(module(known["x"]), known["se_out"], atol=1e-5, rtol=1e-5)


def test_selective_context_with_an_even_mixture_is_a_selective_kernel_of_half_the_sum() -> None:
    known = {k: torch.from_numpy(v) for k, v in reference("library_blocks.npz").items()}
    module = SelectiveContext(16, groups=4, reduction=2).eval()
    state = {"mixture": torch.zeros(2), "select.weight": known["sk.attn.fc_select.weight"]}
    # The even convex combination is half of SKNet's sum.
    state["squeeze.weight"] = 2 * known["sk.attn.fc_reduce.weight"]
    for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        state[f"norm.{kind}"] = known[f"sk.attn.bn.{kind}"]
        for i in (0, 1):
            state[f"branches.{i}.norm.{kind}"] = known[f"sk.paths.{i}.bn.{kind}"]
    for i in (0, 1):
        state[f"branches.{i}.conv.weight"] = known[f"sk.paths.{i}.conv.weight"]
    module.load_state_dict(state)
    torch.testing.assert_close(module(known["x"]), known["sk_out"], atol=1e-5, rtol=1e-5)


def test_enhancement_and_context_start_as_the_identity_but_for_a_common_factor() -> None:
    head, x = CiDeR(16).eval(), maps()
    torch.testing.assert_close(head.context(head.enhancement(x)), x * torch.tensor(4.0).sigmoid(), atol=1e-4, rtol=1e-4)


def test_the_expected_background_is_the_mean_of_what_is_drawn() -> None:
    drawn = drawn_background(torch.zeros(200_000, 1, 1))
    assert drawn.min() == 0 and drawn.max() == 1
    assert abs(float(drawn.mean()) - EXPECTED_BACKGROUND) < 0.004


def test_a_mask_is_hard_and_lets_a_gradient_through() -> None:
    module = AttentionalLocalisation(16, thresholds=(0.5,)).train()
    attention = torch.tensor([[[0.1, 0.49, 0.51, 0.9]]], requires_grad=True)
    mask = module._mask(attention, 0.5)
    assert mask[0, 0, 2:].tolist() == [1, 1] and (mask[0, 0, :2] < 1).all()
    mask.sum().backward()
    assert attention.grad is not None and (attention.grad > 0).all()


def test_evaluation_repeats_itself_and_training_draws_backgrounds() -> None:
    head, x = CiDeR(16), maps()
    head.eval()
    assert torch.equal(head(x, 0, 0)[0], head(x, 0, 0)[0])
    head.train()
    first, again = head(x, 0, 0)[0], head(x, 0, 0)[0]
    assert not torch.equal(first, again)


def test_every_parameter_learns() -> None:
    head = CiDeR(16).train()
    torch.nn.init.normal_(head.enhancement.excite.weight, std=0.1)
    # The branches start alike, when it does not matter how they are mixed; one step sets them apart.
    for parameter in head.context.branches.parameters():
        parameter.data += 0.1 * torch.rand(parameter.shape)
    head.projection.matrix += 0.1 * torch.randn(16, 16)
    descriptor, attention = head(maps(), 0, 0)
    (descriptor[:, :8].sum() + 0 * attention.sum()).backward()
    silent = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (20, 15)])
def test_descriptors_are_of_unit_norm_and_attention_in_range(size: tuple[int, int]) -> None:
    descriptor, attention = CiDeR(16).eval()(maps(3, 16, *size), 0, 0)
    np.testing.assert_allclose(descriptor.detach().norm(dim=1).numpy(), 1, atol=1e-5)
    assert attention.shape == (3, *size) and attention.min() >= 0 and attention.max() <= 1


def test_training_keeps_the_statistics_of_batch_norms() -> None:
    head = CiDeR(16).train()
    head(maps() + 5, 0, 0)
    assert all(float(v.abs().sum()) == 0 for k, v in head.state_dict().items() if k.endswith("running_mean"))
