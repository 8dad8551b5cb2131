"""Care for a store of stages: what killed writers left, and which files are damaged."""

import re
from collections.abc import Iterator
from contextlib import suppress

from files.leftovers import remove_leftovers
from orchestrator.doctor import Finding
from orchestrator.price import size_in_words
from orchestrator.session import Session
from workers.places import DAMAGED
from workers.stage_store import StageStore
from workers.stages.table import STAGES

_KEY = re.compile(r"[0-9a-f]{16}")


def clean_up(session: Session) -> None:
    """Remove what killed processes left in the store and in the sweep's folder.

    Only what certainly nobody uses (`files.leftovers`, `StageStore.clean`).
    """
    with suppress(OSError):  # what cannot be removed does no harm
        session.store.clean()
    remove_leftovers(session.runs_dir, is_recursive=False)
    remove_leftovers(session.run_dir)


def examine_store(store: StageStore, *, repairs: bool) -> Iterator[Finding]:
    """Compare every file of every stage with its checksum; of a bucket, all of it is downloaded.

    Args:
        store: The store.
        repairs: Whether damaged stages are set aside, so that the next run computes them.

    Yields:
        A finding for each damaged stage, then one for the store.

    Raises:
        ConfigError: If the store cannot be read, or is of a later version.
    """
    store.check(writes=False)
    n_whole = n_unchecked = n_bytes = n_damaged = 0
    for kind in STAGES:
        for key in sorted(filter(_KEY.fullmatch, store.keys(kind))):
            wrong = store.damage(kind, key)
            record = store.record(kind, key)
            if wrong:
                n_damaged += 1
                yield _damaged(store, kind, key, wrong, repairs=repairs)
            elif record is not None and record.files is not None:
                n_whole += 1
                n_bytes += sum(size for size, _ in record.files.values())
            else:
                n_unchecked += 1
    text = f"{n_whole} stages whole, {size_in_words(n_bytes)} in {store.root}"
    if n_unchecked:
        text += f"; {n_unchecked} of older versions have no checksums and were not compared"
    if n_damaged:
        way_out = (
            "set aside, the next run computes them" if repairs else "--repair sets them aside"
        )
        text += f"; {n_damaged} damaged: {way_out}"
    elif aside := store.place.names(DAMAGED):
        text += f"; {len(aside)} set aside before in {DAMAGED}/, which may be deleted"
    yield Finding(what="store", is_ok=n_damaged == 0, text=text)


def _damaged(store: StageStore, kind: str, key: str, wrong: str, *, repairs: bool) -> Finding:
    text = f"{store.root}/{kind}/{key}: {wrong}"
    if not repairs:
        text += "; --repair sets it aside, and the next run computes it again"
    elif store.set_aside(store.damaged(kind, key, wrong)):
        text += "; set aside, the next run computes it again"
    else:
        text += "; another process computes it now"
    return Finding(what=kind, is_ok=False, text=text)
