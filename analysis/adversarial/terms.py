"""Which losses of a run are moves in a GAN's game: they have no reason to fall, or to keep a level."""

from __future__ import annotations

import re

from parsers.naming.role_layout import SeriesRole
from parsers.naming.roles import LOSSES, words_of
from parsers.naming.run_roles import Roles

__all__ = ["PLAYERS", "adversarial_terms", "is_term"]

#: Roles that only a GAN has.
PLAYERS = frozenset({"generator_loss", "discriminator_loss", "d_real", "d_fake", "g_adversarial"})
#: Words of a part of a loss that say that it comes of the discriminator: its own halves, the generator's adversarial
#: part, sub-discriminators, feature matching, and what StyleGAN logs of D's outputs (`Loss/scores/fake`).
_TERM = re.compile(
    r"\b(?:adv|advloss|adversarial|gan|ganloss|disc|dis|discriminators?|mpd|msd|mrd|mbd|mcd|cqtd|fm|gp|r1|r2)\b"
    r"|\bfeat(?:ure)?s? ?match(?:ing)?\b|\bfmap\b|\b(?:gradient|pl) penalty\b|\bloss (?:scores|signs)\b"
    r"|\b[dg] (?:real|fake|reg)\b"
)


def is_term(one: SeriesRole, players: bool) -> bool:
    """Whether a series is a player's loss, or a part of one where there are players.

    Without players in the log `adv_loss` may be a loss on adversarial examples and `fm_loss` one of flow matching,
    which have to fall.

    >>> loss = SeriesRole("", "adv_loss", "adv_loss", "component_loss", "train", "", "name", 9)
    >>> is_term(loss, players=True), is_term(loss, players=False)
    (True, False)
    """
    if one.role in PLAYERS:
        return one.role in LOSSES or one.role == "g_adversarial"
    return players and one.role in LOSSES and _TERM.search(words_of(one.tag or one.metric)) is not None


def adversarial_terms(roles: Roles) -> list[SeriesRole]:
    """The series of a run, of every split, that are losses of a GAN's players or parts of them.

    >>> import polars as pl
    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": ["g_loss", "d_loss", "mel_loss", "loss_fm"], "step": [1] * 4, "value": [1.0] * 4})
    >>> [one.metric for one in adversarial_terms(finish("r", "r", "jsonl", rows).roles)]
    ['d_loss', 'g_loss', 'loss_fm']
    """
    players = any(one.role in PLAYERS for one in roles)
    return [one for one in roles if is_term(one, players)]
