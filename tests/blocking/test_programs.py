"""Programs that have blocking clients: how they end, and how they are forked."""

from __future__ import annotations

import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.blocking.support import CHAT, MODEL
from tests.embedding.programs import Programs
from tests.embedding.support import Served

from ollama_sc.testing import Reply

BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])
START = """
import atexit, os, signal, sys, threading, warnings
from ollama_sc.blocking import Client
client = Client({url!r}, backend={backend!r})
messages = [{{"role": "user", "content": "Hi"}}]
def opened(which=None):
    stream = (which or client).chat({model!r}, messages, stream=True)
    next(stream)
    return stream
def fork():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # for programs with threads
        return os.fork()
def ended_well(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def run(
    programs: Programs,
    server: Served,
    backend: str,
    program: str,
    stderr: str = "",
    returncode: int = 0,
) -> None:
    """Run a program; it must end as it should, say nothing else, and leave no connection open."""
    start = START.format(url=server.url, backend=backend, model=MODEL)
    done = programs.run(start + textwrap.dedent(program))
    said = done.stderr.strip().splitlines()
    assert (done.returncode, done.stdout, said[-1:]) == (returncode, "", [stderr] if stderr else [])
    assert "Exception ignored" not in done.stderr
    assert "Warning" not in done.stderr
    server.wait_all_closed()


ENDS = {
    "its end": ("", "", 0),
    "sys.exit": ("sys.exit(3)", "", 3),
    "an exception": ("1 / 0", "ZeroDivisionError: division by zero", 1),
    "Ctrl-C": ("os.kill(os.getpid(), signal.SIGINT)\nlist(stream)", "KeyboardInterrupt", -2),
}


@BOTH
@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_in_the_middle_of_streams(
    programs: Programs, slow: Served, backend: str, end: str
) -> None:
    """Its connections are closed, no thread is left when what was there first ends, nothing is said.

    (Threads that read texts are anyio's and trio's own, which end by themselves.)
    """
    code, stderr, returncode = ENDS[end]
    program = """
        def check():
            left = [one.name for one in threading.enumerate()]
            assert not [name for name in left if "ollama_sc" in name], left
        atexit.register(check)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stream, other, group = opened(), opened(), client.group()
        assert threading.active_count() == 2
        job = client.embed_many("all-minilm", iter(str, None))
        job.__enter__()
    """
    run(programs, slow, backend, textwrap.dedent(program) + code, stderr, returncode)


@BOTH
def test_a_program_ends_while_other_threads_are_in_calls(
    programs: Programs, slow: Served, backend: str
) -> None:
    """Daemons are told; one that the program waits for comes to its end first."""
    slow.fake.script(CHAT, Reply.default(), Reply.silence())
    program = f"""
        from ollama_sc import AbortError
        stream = opened()
        def call():
            try:
                client.chat({MODEL!r}, messages)
            except AbortError:
                pass
        def read():
            for number, part in enumerate(stream):
                if number == 5:
                    break
            stream.close()
        threading.Thread(target=call, daemon=True).start()
        threading.Thread(target=read).start()
        while client.statistics().in_flight < 2:
            pass
    """
    run(programs, slow, backend, program)


@BOTH
def test_a_call_after_the_end(programs: Programs, server: Served, backend: str) -> None:
    """What an exit handler asks after clients were closed is answered, or is an error: no hang."""
    program = """
        from ollama_sc import ClientClosedError
        def late():
            try:
                assert client.version().version
            except ClientClosedError as error:
                assert "cannot be started" in str(error)
            client.close()
        atexit.register(late)
        client.version()
    """
    run(programs, server, backend, program)


@BOTH
@pytest.mark.parametrize("closed", [True, False])
def test_a_call_when_all_threads_are_gone(
    programs: Programs, slow: Served, backend: str, closed: bool
) -> None:
    """At the very end, where objects are finalized, a call is an error, and the rest does nothing."""
    program = f"""
        from ollama_sc import ClientClosedError
        class Last:
            def __init__(self):
                self.client, self.stream = client, opened()
                self.module = sys.modules["ollama_sc.blocking"]
                self.job = client.embed_many("all-minilm", iter(str, None)).__enter__()
                self.found = []
            def __del__(self, finalizing=sys.is_finalizing, closed=ClientClosedError, leave=os._exit):
                for call in (self.client.version, self.module.ps, self.stream.__next__):
                    try:
                        call()
                    except Exception as error:
                        self.found.append(type(error) is closed)
                self.stream.abort()
                self.stream.close()
                self.stream.result()
                self.job.abort()
                self.job.close()
                self.client.abort()
                self.client.statistics()
                self.client.close()
                if self.found[:2] != [True, True] or not finalizing():
                    leave(9)
        sys.modules["last"] = type(sys)("last")
        sys.modules["last"].itself = Last()  # until modules go, and threads are gone by then
        if not {closed}:
            atexit.unregister(sys.modules["ollama_sc._worker.processes"]._close_all)
    """
    run(programs, slow, backend, program)


@BOTH
def test_a_forked_process_starts_anew(programs: Programs, slow: Served, backend: str) -> None:
    """With connections of its own, in the middle of the parent's streams, which go on."""
    program = """
        from ollama_sc import ClientClosedError
        stream, group = opened(), client.group()
        child = fork()
        if child:
            next(stream)
            ended_well(child)
            assert group.version()
            next(stream)
        else:
            # What is the parent's is closed here, and ends nothing there.
            assert stream.abort() is False
            stream.result()
            stream.close()
            for call in (lambda: [*stream], group.version):
                try:
                    call()
                except ClientClosedError as error:
                    assert "another process" in str(error)
                else:
                    raise AssertionError
            group.close()
            assert client.abort() == 0
            assert client.version()
            own = opened()
            assert client.abort("enough") == 1
            del stream, group
            client.close()
    """
    run(programs, slow, backend, program)
    assert slow.fake.connections >= 3


@BOTH
@pytest.mark.parametrize("how", ["client.abort()", "stream.close()", "client.close()"])
def test_the_server_hears_of_it_though_a_child_lives(
    programs: Programs, slow: Served, tmp_path: Path, backend: str, how: str
) -> None:
    """A forked child has the parent's descriptors; the connection is closed all the same."""
    seen = tmp_path / "seen"
    program = f"""
        import time
        stream = opened()
        ours, theirs = os.pipe()
        child = fork()
        if child:
            os.close(ours)
            {how}
            while not os.path.exists({str(seen)!r}):
                time.sleep(0.01)
            os.close(theirs)
            ended_well(child)
        else:
            os.close(theirs)
            os.read(ours, 1)
    """
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(run, programs, slow, backend, program)
        slow.wait_for_requests(1)
        slow._portal.call(slow.fake.requests[0].wait_closed)
        seen.touch()
        ended.result()


@BOTH
def test_a_child_that_ends_leaves_the_parents_streams_alone(
    programs: Programs, slow: Served, backend: str
) -> None:
    """Whatever is finalized there: neither connections nor what watches them are touched."""
    program = """
        import gc
        streams = [opened() for _ in range(3)]
        child = fork()
        if child:
            ended_well(child)
            for stream in streams:
                next(stream)
                assert stream.abort()
        else:
            from ollama_sc._http.sockets import Socket
            for found in gc.get_objects():
                if isinstance(found, Socket):
                    found.close()
            streams.clear()
            gc.collect()
    """
    run(programs, slow, backend, program)


@BOTH
def test_a_job_of_the_parents_is_none_of_a_childs(
    programs: Programs, server: Served, backend: str
) -> None:
    """A child that ends says nothing of it."""
    program = """
        import gc
        job = client.embed_many("all-minilm", iter(str, None)).__enter__()
        child = fork()
        if not child:
            warnings.simplefilter("error")
            del job
            gc.collect()
            sys.exit()
        ended_well(child)
        job.close()
    """
    run(programs, server, backend, program)


@BOTH
def test_a_fork_in_the_middle_of_everything(
    programs: Programs, server: Served, backend: str
) -> None:
    """Other threads are in calls, and open clients, while it forks, again and again: no hang."""
    program = """
        done = threading.Event()
        def busy():
            while not done.is_set():
                client.version()
                with Client(client._worker.client._url, backend=client._backend) as other:
                    other.version()
                list(opened())
        client.version()
        threads = [threading.Thread(target=busy) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            child = fork()
            if not child:
                assert client.version()
                list(opened())
                client.close()
                os._exit(0)
            ended_well(child)
        done.set()
        for thread in threads:
            thread.join()
    """
    run(programs, server, backend, program)


@BOTH
def test_the_forks_child_forks(programs: Programs, server: Served, backend: str) -> None:
    """Each generation has its own."""
    program = """
        for _ in range(3):
            assert client.version()
            child = fork()
            if child:
                ended_well(child)
                break
        assert client.version()
        client.close()
    """
    run(programs, server, backend, program)


def test_functions_in_a_pool_of_processes(programs: Programs, server: Served) -> None:
    """They pickle, and each process has a default client of its own."""
    program = """
        import multiprocessing
        os.environ["OLLAMA_HOST"] = client._twin._url
        import ollama_sc
        assert ollama_sc.embed("all-minilm", "a").embeddings
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            replies = pool.starmap(ollama_sc.embed, [("all-minilm", "a")] * 4)
        assert len(replies) == 4
        pool.join()
    """
    run(programs, server, "asyncio", program)
