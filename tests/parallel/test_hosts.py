"""Who the processes of a run are, and that they meet, or say in one sentence why not."""

import re
import socket
import threading
import time

import pytest

from configs.schema import InputError
from parallel import rollcall
from parallel.hosts import Cluster, find

SLURM = {
    "SLURM_JOB_ID": "100",
    "SLURM_STEP_NODELIST": "node1",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


class TestFind:
    def test_nothing_set_is_one_process_alone(self):
        assert find(None, None, None, {}) is None
        assert find("10.0.0.1:8476", 0, 1, {}) is None
        assert find(None, None, None, SLURM | {"SLURM_NTASKS": "1"}) is None
        without = {name: value for name, value in SLURM.items() if "NODELIST" not in name}
        assert find(None, None, None, without) is None  # in the batch script, outside of srun

    def test_flags_come_before_what_the_environment_says(self):
        assert find("h:1", 1, 2, SLURM) == Cluster(2, 1, "h:1")
        assert find("[fd00::1]:8476", 0, 2, {}) == Cluster(2, 0, "[fd00::1]:8476")

    @pytest.mark.parametrize(
        ("nodes", "first"),
        [
            ("node1", "node1"),
            ("node1,other2", "node1"),
            ("node[001-015],x[1-2]", "node001"),
            ("gpu-a[07,09-12]", "gpu-a07"),
            ("n1,n[2-3]", "n1"),
        ],
    )
    def test_slurm(self, nodes, first):
        found = find(None, None, None, SLURM | {"SLURM_STEP_NODELIST": nodes})
        assert found == Cluster(4, 3, f"{first}:61540")

    @pytest.mark.parametrize(
        ("tasks", "visible", "devices"),
        [
            ("1(x2)", "0,1,2,3", None),
            ("2(x2)", "0,1,2,3", (1,)),
            ("2(x2)", "0", None),  # Slurm has given each task its own
            ("2,1(x2)", None, (1,)),
        ],
    )
    def test_slurm_tasks_on_one_node_take_a_gpu_each(self, tasks, visible, devices):
        more = {"SLURM_STEP_TASKS_PER_NODE": tasks}
        more |= {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
        found = find(None, None, None, SLURM | more)
        assert found is not None
        assert found.devices == devices

    @pytest.mark.parametrize(
        ("flags", "sentence"),
        [
            (
                ("h:1", None, 2),
                "--coordinator, --process_id and --num_processes are given together, and "
                "--process_id is missing",
            ),
            (
                (None, 0, None),
                "--coordinator, --process_id and --num_processes are given together, and "
                "--coordinator, --num_processes are missing",
            ),
            (
                ("h:1", 2, 2),
                "--process_id=2 is none of 0 to 1, which --num_processes=2 allows",
            ),
            (("h:1", 0, 0), "--num_processes=0 must be at least 1"),
            (
                ("host", 0, 2),
                "--coordinator=host is not HOST:PORT of process 0, such as 10.0.0.1:8476",
            ),
            (
                ("h:70000", 0, 2),
                "--coordinator=h:70000 is not HOST:PORT of process 0, such as 10.0.0.1:8476",
            ),
        ],
    )
    def test_flags_that_make_no_sense(self, flags, sentence):
        with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
            find(flags[0], flags[1], flags[2], {})


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def meet(*processes, timeout=10.0):
    """What each (number, count) is told, "" when all is well; process 0 starts last."""
    port, told = free_port(), {}

    def call(place, process, count):
        try:
            rollcall.meet(("127.0.0.1", port), process, count, timeout)
            told[place] = ""
        except InputError as error:
            told[place] = str(error)

    threads = []
    for place, (process, count) in enumerate(processes):
        threads.append(threading.Thread(target=call, args=(place, process, count)))
        threads[-1].start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    with socket.create_server(("", port)):  # free again at once
        return [told[place] for place in range(len(processes))]


class TestRollCall:
    def test_all_present(self):
        assert meet((2, 3), (1, 3), (0, 3)) == ["", "", ""]

    def test_a_missing_one_is_named_to_all(self):
        sentence = (
            "of 4 processes these did not come in time: 1, 3; see why on their hosts, or wait "
            "longer with --start_timeout"
        )
        assert meet((2, 4), (0, 4), timeout=1) == [sentence] * 2

    def test_no_process_0(self):
        (sentence,) = meet((1, 2), timeout=0.5)
        assert re.fullmatch(
            r"process 0 did not answer at 127.0.0.1:\d+ within 0.5 s: start it there, see that "
            "this port is open between the hosts, or wait longer with --start_timeout",
            sentence,
        )

    def test_the_same_number_twice(self):
        sentence = "two processes have --process_id=1: give each its own"
        assert meet((1, 3), (1, 3), (0, 3)) == [sentence] * 3

    def test_another_number_of_processes(self):
        sentence = (
            "process 1 was started with --num_processes=3, and process 0 with 2: give all the same"
        )
        assert meet((1, 3), (0, 2)) == [sentence] * 2

    def test_a_port_in_use(self):
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
            sentence = (
                f"process 0 cannot listen at port {port} of this host (Address already in use): "
                "end what uses it, or give all processes another port in --coordinator"
            )
            with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
                rollcall.meet(("127.0.0.1", port), 0, 2, 1)

    def test_a_stranger_at_the_port_is_ignored(self):
        port = free_port()
        told = []

        def zero():
            rollcall.meet(("127.0.0.1", port), 0, 2, 10)
            told.append("all there")

        thread = threading.Thread(target=zero)
        thread.start()
        for _ in range(50):
            try:
                with socket.create_connection(("127.0.0.1", port)) as stranger:
                    stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        rollcall.meet(("127.0.0.1", port), 1, 2, 10)
        thread.join()
        assert told == ["all there"]
