"""Prints the numbers of the tests CrossEntropy.HasTheNumbersOfPyTorch and Balance.AuxiliaryIsThatOfTransformers:
cross entropy with a z-loss from PyTorch, and the load balancing loss of transformers' Mixtral (which does not divide by
the number of experts a token has: here it is divided).

    python loss_values.py
"""
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func


def inputs(rows: int, cols: int) -> torch.Tensor:
    t, v = torch.arange(rows)[:, None], torch.arange(cols)[None, :]
    return (((t * 7 + v * 13) % 31 - 15).double() / 4).requires_grad_()


def show(name: str, values) -> None:
    print(name, ", ".join(f"{float(value):.15g}" for value in torch.as_tensor(values).flatten()))


logits = inputs(3, 5)
targets = torch.tensor([4, -1, 0])
loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-1, reduction="none")
z = torch.logsumexp(logits, 1)[targets >= 0] ** 2
(0.5 * (loss.sum() + 0.01 * z.sum())).backward()
show("loss", loss)
show("z", z)
show("gradient", logits.grad[targets >= 0])

router = inputs(6, 8)
auxiliary = load_balancing_loss_func((router,), num_experts=8, top_k=3) / 3
auxiliary.backward()
show("auxiliary", auxiliary)
show("router gradient of token 4", router.grad[4])
show("chosen", torch.topk(router, 3).indices)
