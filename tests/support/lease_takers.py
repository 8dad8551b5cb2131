"""Several processes that try to take one lease at the same time.

They come from a server that has no threads (`command_processes`): copies of the process of the
tests, whose libraries have started threads, may wait without end for a lock of such a thread.
"""

import multiprocessing
import os

_context = multiprocessing.get_context("forkserver")


def taken_numbers(place, n_processes: int, dead_number: int) -> list[int]:
    """The number of the lease that each process got, in rising order; 0 for those that got none.

    Args:
        place: Address of the place, as `workers.places.open_place` takes it.
        n_processes: How many try.
        dead_number: A lease of this number or lower has run out.
    """
    _context.set_forkserver_preload(["commands_preload"])
    together = _context.Barrier(n_processes)
    answers = _context.SimpleQueue()
    processes = [
        _context.Process(
            target=_take, args=(dict(os.environ), str(place), dead_number, together, answers)
        )
        for _ in range(n_processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0, f"a taker of {place} ended with {process.exitcode}"
    return sorted(answers.get() for _ in processes)


def _take(environment, place, dead_number, together, answers):
    from workers.lease import Lease
    from workers.places import open_place

    os.environ.update(environment)
    opened = open_place(place)
    together.wait(100)
    lease = Lease.take(opened, time_to_live_s=60.0, dead_number=dead_number)
    number = lease.number if isinstance(lease, Lease) else 0
    answers.put(number)
    together.wait(100)  # one that has ended is followed at once
