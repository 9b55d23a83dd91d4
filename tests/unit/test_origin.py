"""What a namespace without a name is called, from what runtimes and service managers really write."""

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.core.origin import Process, cgroup_of, container_of, origin_of

ID = "4f5e1a2b3c4d" + "0123456789abcdef" * 3 + "feed"
SHORT = "4f5e1a2b3c4d"
POD = "kubepods-besteffort-pod4d1c9a3f_1b2e_4c3d_9e8f_001122334455.slice"
KUBEPODS = f"/kubepods.slice/kubepods-besteffort.slice/{POD}"
USER = "/user.slice/user-1000.slice/user@1000.service"

CONTAINERS = {
    # Docker: cgroupfs and systemd drivers, rootless, with a parent of one's own, inside Kubernetes.
    f"/docker/{ID}": f"docker:{SHORT}",
    f"/system.slice/docker-{ID}.scope": f"docker:{SHORT}",
    f"{USER}/user.slice/docker-{ID}.scope": f"docker:{SHORT}",
    f"/batch.slice/docker-{ID}.scope/init": f"docker:{SHORT}",
    f"{KUBEPODS}/docker-{ID}.scope": f"docker:{SHORT}",
    f"/system.slice:docker:{ID}": f"docker:{SHORT}",
    # Podman: both drivers, rootless, pods, and in a unit of its own (quadlet).
    f"/libpod_parent/libpod-{ID}": f"podman:{SHORT}",
    f"/libpod_parent/{ID}": f"podman:{SHORT}",
    f"/machine.slice/libpod-{ID}.scope/container": f"podman:{SHORT}",
    f"{USER}/user.slice/libpod-{ID}.scope/container": f"podman:{SHORT}",
    f"/machine.slice/machine-libpod_pod_{ID}.slice/libpod-{ID}.scope": f"podman:{SHORT}",
    f"/system.slice/nginx.service/libpod-payload-{ID}": f"podman:{SHORT}",
    # containerd: by itself, by nerdctl, under Kubernetes by either driver, and with the two mixed up.
    f"/default/{ID}": f"containerd:{SHORT}",
    f"/system.slice/nerdctl-{ID}.scope": f"containerd:{SHORT}",
    f"{KUBEPODS}/cri-containerd-{ID}.scope": f"cri:{SHORT}",
    f"/kubepods/besteffort/pod4d1c9a3f-1b2e-4c3d-9e8f-001122334455/{ID}": f"cri:{SHORT}",
    f"/system.slice/containerd.service/{POD}:cri-containerd:{ID}": f"cri:{SHORT}",
    # CRI-O.
    f"{KUBEPODS}/crio-{ID}.scope": f"crio:{SHORT}",
    f"/kubepods/besteffort/pod4d1c9a3f/crio-{ID}": f"crio:{SHORT}",
    # LXC: itself, what runs inside, Incus, Proxmox, and by libvirt.
    "/lxc.payload.web": "lxc:web",
    "/lxc.payload.web/init.scope": "lxc:web",
    "/lxc.payload.web/system.slice/nginx.service": "lxc:web",
    "/lxc.payload.default_my-box": "lxc:default_my-box",
    "/lxc/101/ns/system.slice/cron.service": "lxc:101",
    r"/machine.slice/machine-lxc\x2d12345\x2ddemo.scope/libvirt": "lxc:demo",
    # systemd-nspawn: by hand, and by its unit.
    "/machine.slice/machine-web.scope/payload": "nspawn:web",
    r"/machine.slice/machine-my\x2dbox.scope/payload/system.slice/cron.service": "nspawn:my-box",
    "/machine.slice/systemd-nspawn@web.service/payload": "nspawn:web",
    r"/machine.slice/systemd-nspawn@my\x2dbox.service/payload": "nspawn:my-box",
    "/machine.slice/systemd-nspawn@my-box.service/supervisor": "nspawn:my-box",
    # The innermost counts.
    f"/lxc.payload.builder/docker/{ID}": f"docker:{SHORT}",
    f"/docker/{'a' * 64}/docker/{ID}": f"docker:{SHORT}",
}

UNITS = {
    "/system.slice/foo.service": "unit:foo.service",
    "/system.slice/foo.service/worker/3": "unit:foo.service",
    "/system.slice/system-getty.slice/getty@tty1.service": "unit:getty@tty1.service",
    "/system.slice/run-u12.scope": "unit:run-u12.scope",
    "/system.slice/ssh.socket": "unit:ssh.socket",
    "/foo.service": "unit:foo.service",
    "/init.scope": "unit:init.scope",
    # A name that would be taken for a file of the control group's own.
    "/system.slice/_cpu.service": "unit:cpu.service",
    "/system.slice/__foobar.service": "unit:_foobar.service",
    # The unit's own name, as systemctl takes it.
    r"/system.slice/dev-disk\x2dby.service": r"unit:dev-disk\x2dby.service",
    # A user's own units cannot be taken for the system's.
    f"{USER}/app.slice/nginx.service": "unit:user@1000.service/nginx.service",
    f"{USER}/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope": "unit:user@1000.service/vte-spawn-1.scope",
    f"{USER}/init.scope": "unit:user@1000.service/init.scope",
    USER: "unit:user@1000.service",
    f"/system.slice/libpod-conmon-{ID}.scope": f"unit:libpod-conmon-{ID}.scope",
    r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator": r"unit:machine-qemu\x2d1\x2dvm.scope",
}

NEITHER = (
    "",
    "/",
    "/system.slice",
    "/user.slice/user-0.slice/session-5.scope",
    "/lxc.monitor.web",
    "/system.slice/getty@.service",
    "/getty",
    "/some/where",
    # No id of a container is so short, and none has such digits.
    "/docker/4f5e1a2b3c4d",
    f"/docker/{'g' * 64}",
)


def process(cgroup: str = "/", name: str = "sleep", arguments: str = "sleep 60") -> Process:
    return Process(pid=1234, name=name, arguments=arguments, cgroup=cgroup, user="root")


@pytest.mark.parametrize(("cgroup", "container"), [*CONTAINERS.items(), *UNITS.items()])
def test_containers_and_units_are_told_by_their_control_group(cgroup: str, container: str) -> None:
    origin = origin_of(process(cgroup), "/proc/1234/ns/net")
    assert origin.container == container
    assert origin.name == container


@pytest.mark.parametrize("cgroup", NEITHER)
def test_what_nobody_vouches_for_is_called_by_its_process(cgroup: str) -> None:
    origin = origin_of(process(cgroup), "/proc/1234/ns/net")
    assert origin.container == ""
    assert origin.name == "pid:1234:sleep"


def test_an_origin_holds_all_that_rules_may_ask_about() -> None:
    origin = origin_of(process("/system.slice/foo.service"), "/proc/1234/ns/net")
    assert origin.source == "process"
    assert origin.path == "/proc/1234/ns/net"
    assert origin.pid == 1234
    assert origin.command == "sleep 60"
    assert origin.cgroup == "/system.slice/foo.service"
    assert origin.user == "root"


def test_a_process_without_arguments_is_commanded_by_its_name() -> None:
    assert origin_of(process(name="kworker/0:1", arguments=""), "").command == "kworker/0:1"


PARTS = st.sampled_from(
    sorted(
        {part for path in (*CONTAINERS, *UNITS, *NEITHER) for part in path.split("/")} | {"_", ".slice", "@.service"}
    )
)
TEXTS = st.binary(max_size=300).map(os.fsdecode)
PATHS = st.one_of(TEXTS, st.lists(st.one_of(PARTS, TEXTS), max_size=6).map(lambda parts: "/" + "/".join(parts)))


@given(PATHS, TEXTS, TEXTS)
@example(r"/machine-\xff.scope", "", "")
@example("/machine-\udcff\u20ac.scope", "", "")
def test_whatever_a_process_is_called_it_gets_a_name(cgroup: str, name: str, arguments: str) -> None:
    origin = origin_of(process(cgroup, name, arguments), "")
    assert origin.name == (origin.container or f"pid:1234:{name}")
    kind, _, rest = origin.name.partition(":")
    assert kind in {"docker", "podman", "cri", "crio", "containerd", "lxc", "nspawn", "unit", "pid"}
    assert rest


@given(PATHS)
def test_slashes_more_or_less_make_no_difference(cgroup: str) -> None:
    assert container_of(cgroup) == container_of(cgroup.replace("/", "//") + "/")


# What is called by its id alone is told by what is around it.
@given(PATHS, st.sampled_from(sorted(CONTAINERS.keys() - {f"/default/{ID}"})))
@example("/lxc", "/lxc.payload.web")
def test_nothing_around_a_container_hides_it(around: str, container: str) -> None:
    assert container_of(around + container) == CONTAINERS[container]


@given(st.text("abcdefghij-._", min_size=1, max_size=12))
def test_a_machine_s_escaped_name_is_read_back(name: str) -> None:
    escaped = "".join(rf"\x{ord(character):02x}" if character == "-" else character for character in name)
    assert container_of(f"/machine.slice/machine-{escaped}.scope/payload") == f"nspawn:{name}"


VERSION_2 = "0::/system.slice/foo.service\n"
HYBRID = "2:cpu,cpuacct:/\n1:name=systemd:/system.slice/foo.service\n0::/\n"
DOCKER_1 = f"12:pids:/docker/{ID}\n11:cpuset:/\n3:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n"
ONLY_MEMORY = "9:name=systemd:/\n4:memory:/sandbox/1\n3:cpuset:/\n0::/\n"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (VERSION_2, "/system.slice/foo.service"),
        (HYBRID, "/system.slice/foo.service"),
        (HYBRID.replace("0::/", "0::/unified"), "/unified"),
        (DOCKER_1, f"/docker/{ID}"),
        (ONLY_MEMORY, "/sandbox/1"),
        ("7:misc:/odd\n", "/odd"),
        ("1:name=systemd:/\n0::/\n", "/"),
        ("0::/with:colon\n", "/with:colon"),
        ("", ""),
        ("nonsense\n::\n", ""),
    ],
)
def test_a_control_group_is_read_in_either_version(text: str, path: str) -> None:
    assert cgroup_of(text) == path


@given(TEXTS)
def test_a_control_group_is_a_path_or_nothing(text: str) -> None:
    assert cgroup_of(text)[:1] in {"", "/"}
