"""Programs that have an embedder: how they end, and how they are forked."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from tests.embedding.programs import Programs
from tests.embedding.support import MODEL, QUICK, Served
from tests.support import ROOT

from ollama_sc.testing import Reply


def run_program(programs: Programs, server: Served, backend: str, program: str) -> None:
    """Run a program that has an embedder; it must end well and say nothing."""
    start = f"""
        import os, sys, threading
        from ollama_sc.embedding import Embedder
        embed = Embedder({MODEL!r}, {server.url!r}, backend={backend!r})
    """
    done = programs.run(textwrap.dedent(start) + textwrap.dedent(program))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    server.wait_all_closed()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_ends_without_closing_it(
    programs: Programs, server: Served, backend: str
) -> None:
    """It does not hang, and nothing is said."""
    run_program(programs, server, backend, "assert embed(['a', 'b']).shape == (2, 8)")
    run_program(programs, server, backend, "pass")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_is_closed_when_a_program_ends(programs: Programs, server: Served, backend: str) -> None:
    """Its thread is gone before what was there first ends."""
    program = """
        import atexit
        def check():
            assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
        atexit.register(check)
        embed(["a"])
        assert threading.active_count() == 2
    """
    run_program(programs, server, backend, program)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_ends_while_a_call_is_running(
    programs: Programs, server: Served, backend: str
) -> None:
    """A call in a daemon thread, which nobody waits for, is ended with the program."""
    server.fake.script(QUICK, Reply.default(), Reply.default(stall_at=0))
    program = """
        embed([])
        from ollama_sc import AbortError
        def call():
            try:
                embed(["a"])
            except AbortError:
                pass
        threading.Thread(target=call, daemon=True).start()
        while not embed._worker._servers.all[0].in_flight:
            pass
    """
    run_program(programs, server, backend, program)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_starts_afresh_in_a_process_that_was_forked(
    programs: Programs, server: Served, backend: str
) -> None:
    """What the parent has open is left alone: both go on, and both end."""
    program = """
        import warnings
        first = embed(["a", "b"])
        warnings.simplefilter("ignore", DeprecationWarning)  # for programs with threads
        child = os.fork()
        assert (embed(["a", "b"]) == first).all()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            assert (embed(["a", "b"]) == first).all()
        else:
            embed.close()
    """
    run_program(programs, server, backend, program)
    assert server.fake.connections == 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_fork_while_another_thread_starts_it(
    programs: Programs, server: Served, backend: str
) -> None:
    """What that thread holds is not held in the child."""
    program = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # for programs with threads
        held, forked = threading.Event(), threading.Event()
        from ollama_sc._worker import processes
        processes.register(embed)  # as who holds it has

        def hold():
            with embed._lock:
                held.set()
                forked.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child:
            forked.set()
            assert os.waitpid(child, 0)[1] == 0
            thread.join()
        assert embed(["a", "b"]).shape == (2, 8)
        embed.close()
    """
    run_program(programs, server, backend, program)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_that_is_collected_at_the_very_end_says_nothing(backend: str) -> None:
    """When modules have lost their names, and nobody has closed it before."""
    program = f"""if True:
        import atexit, sys
        from ollama_sc.embedding import Embedder
        from ollama_sc.embedding.worker import embedder, thread
        embed = Embedder("m", "127.0.0.1:1", attempts=1, backend={backend!r})
        try:
            embed(["a"])
        except ConnectionError:
            pass
        assert not embed._worker.ended
        atexit._clear()
        sys.kept = embed
        del embed
        thread.suppress = embedder.is_finalizing = None
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], cwd=ROOT, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
