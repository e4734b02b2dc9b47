import pytest
import torch
from torch.nn.functional import cross_entropy

from alpaca_lora.training import loss


@pytest.mark.parametrize("frozen", ["none", "head"])
@pytest.mark.parametrize("rows", [1, 7, 8, 20])
def test_chunks_give_the_plain_cross_entropy_and_its_gradients(rows, frozen, monkeypatch):
    monkeypatch.setattr(loss, "logit_rows", lambda vocabulary, on_cpu: 8)
    torch.manual_seed(0)
    hidden = torch.randn(rows, 16, requires_grad=True)
    weight = torch.randn(50, 16, requires_grad=frozen == "none")
    targets = torch.randint(50, (rows,))
    leaves = [leaf for leaf in (hidden, weight) if leaf.requires_grad]
    expected = cross_entropy(hidden @ weight.T, targets, reduction="sum")
    found = loss.linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    # Scaled, as the trainer scales it by the step's token count.
    for ours, plain in zip(
        torch.autograd.grad(found / 7, leaves), torch.autograd.grad(expected / 7, leaves), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_no_gradient_is_made_where_none_is_needed():
    hidden, weight = torch.randn(3, 4), torch.randn(5, 4)
    assert not loss.linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 2])).requires_grad


def test_large_logits_do_not_overflow():
    hidden, weight = torch.full((2, 4), 1e3), torch.eye(4) * 1e3
    assert torch.isfinite(loss.linear_cross_entropy(hidden, weight, torch.tensor([0, 3])))
