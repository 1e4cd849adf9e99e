"""The healed model again, from the folder that `odp.heal` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.healing_folder import (
    ADAPTER,
    RANGES,
    SURGERY_FOLDER,
    check_surgery,
    read_record,
    surgery_of,
)
from odp.rewriting import rewrite

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from odp.job import Stage

__all__ = ["load_healed", "load_surgery_and_healed"]


def load_healed(
    model: PreTrainedModel,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    share_parameters: bool = False,
    progress: Stage = lambda what, done, total: None,
) -> Any:
    """The healed model again: rewritten as it was, with its adapter.

    Args:
        model: the original; unchanged.
        folder: of `heal`.
        tokenizer: of the model, to be compared with that of the training; None does not.
        share_parameters: whether to use the memory of the original's parameters.  Merging the
            adapter then changes the original, too.
        progress: called when a stage advances.

    Returns:
        A `peft.PeftModel` in evaluation mode; `merge_and_unload()` makes a plain model of it.

    Raises:
        OdpError: there is no healing, it is not finished, or it is of another model, tokenizer or
            version.
    """
    place = Path(folder)
    rewritten, surgery = _rewritten(model, place, tokenizer, share_parameters, progress)
    return _adapted(rewritten, place, tokenizer, surgery)


def load_surgery_and_healed(
    model: PreTrainedModel,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    progress: Stage = lambda what, done, total: None,
) -> tuple[PreTrainedModel, Any]:
    """The rewritten model without an adapter, and the healed one, side by side.

    Args:
        model: the original; unchanged, and its memory is shared by both.
        folder: of `heal`.
        tokenizer: as for `load_healed`.
        progress: called when a stage advances.

    Returns:
        The rewritten model, and a `peft.PeftModel`, both in evaluation mode.

    Raises:
        OdpError: as `load_healed`.
    """
    from odp.healing.adapters import sharing_copy

    place = Path(folder)
    rewritten, surgery = _rewritten(model, place, tokenizer, True, progress)
    # PEFT puts its layers into the model that it is given.
    return rewritten, _adapted(sharing_copy(rewritten), place, tokenizer, surgery)


def _rewritten(
    model: PreTrainedModel, place: Path, tokenizer: Any, share_parameters: bool, progress: Stage
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model with the expressions of a healing, and their description."""
    from odp.healing.adapters import check_healing_installed
    from odp.healing.identity import Identity

    check_healing_installed()
    known = read_record(place)
    identity = Identity.from_dict(known["model"])
    identity.check(Identity.of(model, tokenizer), f"the healing in '{place}'")
    if not (place / SURGERY_FOLDER / ADAPTER).is_dir():
        raise OdpError(
            f"the healing in '{place}' is not finished: it has no adapter yet; go on with it by "
            "odp heal --resume"
        )
    options = {name: known[name] for name in ("passes", "error", "margin", "guard", "target")}
    rewritten = rewrite(
        model,
        calibration=place / RANGES,
        measure=False,
        share_parameters=share_parameters,
        progress=progress,
        **options,
    )
    surgery = surgery_of(known["passes"], rewritten)
    check_surgery(known, surgery, place)
    return rewritten.model.eval(), surgery


def _adapted(rewritten: PreTrainedModel, place: Path, tokenizer: Any, surgery: Any) -> Any:
    from odp.healing.adapters import load_adapter

    return load_adapter(
        rewritten, place / SURGERY_FOLDER / ADAPTER, tokenizer=tokenizer, surgery=surgery
    )
