"""Events over MQTT: with a stand-in client, and with paho-mqtt against a small broker."""

from __future__ import annotations

import json
import socket
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from scripted import Script, roads
from tiny_detector import make_bundle

from edgecnn.errors import InputError, MissingDependency
from edgecnn.run import Outputs, RunSettings, Source, run_streams
from edgecnn.run.mqtt import Mqtt, MqttSettings


@dataclass
class Sent:
    rc: int


class Client:
    """Stands in for paho's: remembers what it was given."""

    def __init__(self, rc: int = 0) -> None:
        self.sent: list[tuple[str, str, bool]] = []
        self.ended: list[str] = []
        self._rc = rc

    def publish(self, topic: str, payload: str, *, qos: int, retain: bool) -> Sent:
        assert qos == 0
        self.sent.append((topic, payload, retain))
        return Sent(self._rc)

    def disconnect(self) -> None:
        self.ended.append("disconnect")

    def loop_stop(self) -> None:
        self.ended.append("loop_stop")


def test_events_and_modes_are_messages_and_frames_are_not(tmp_path: Path) -> None:
    bundle, client = make_bundle(tmp_path / "lamps.bundle"), Client()
    mqtt = Mqtt(MqttSettings("broker", topic="car/7"), client)
    dark = roads(60, lambda i, p: p * 0 + i % 3 if i >= 20 else p)
    run_streams(bundle, [(Source(Script(dark)), Outputs("front", mqtt=mqtt))], RunSettings(detect_every=3, threads=1))
    mqtt.close()
    topics = [(topic, retain) for topic, _, retain in client.sent]
    assert topics == [("car/7/front/mode", True), ("car/7/status", True)]
    mode = json.loads(client.sent[0][1])
    assert (mode["mode"], mode["causes"]) == ("WARN-OFF", ["black"])
    assert client.sent[-1][1] == "offline" and client.ended == ["disconnect", "loop_stop"]


def test_what_can_not_be_sent_is_counted() -> None:
    mqtt = Mqtt(MqttSettings("broker"), Client(rc=4))
    mqtt.publish("front", "event", {"kind": "fcw_on"})
    assert mqtt.lost == 1


@pytest.mark.parametrize(
    "wrong",
    [{"host": ""}, {"port": 0}, {"port": 70000}, {"topic": ""}, {"topic": "a/#"}, {"topic": "/a"}, {"topic": "$SYS"}],
)
def test_wrong_settings_are_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        MqttSettings(**{"host": "broker", **wrong})


def test_the_password_is_in_no_text() -> None:
    assert "hunter2" not in repr(MqttSettings("broker", username="hunter1", password="hunter2"))
    assert "hunter1" not in repr(MqttSettings("broker", username="hunter1", password="hunter2"))


def test_without_paho_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("edgecnn.run.mqtt.import_module", missing)
    with pytest.raises(MissingDependency, match=r"edgecnn\[mqtt\]"):
        Mqtt(MqttSettings("127.0.0.1"))


class Broker:
    """As much of MQTT 3.1.1 as a client needs that sends at QoS 0: CONNECT, PUBLISH, PINGREQ, DISCONNECT."""

    def __init__(self, code: int = 0) -> None:
        self.connect, self.messages = b"", list[tuple[str, str, bool]]()
        self.gone = threading.Event()
        self._code = code
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.close()
        self._thread.join(5)

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection, connection.makefile("rb") as stream:
            while head := stream.read(1):
                size = shift = 0
                while True:
                    (byte,) = stream.read(1)
                    size |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                body, kind = stream.read(size), head[0] >> 4
                if kind == 1:
                    self.connect = body
                    connection.sendall(bytes((0x20, 2, 0, self._code)))
                    if self._code:
                        break
                elif kind == 3:
                    (length,) = struct.unpack(">H", body[:2])
                    self.messages.append(
                        (body[2 : 2 + length].decode(), body[2 + length :].decode(), bool(head[0] & 1))
                    )
                elif kind == 14:
                    break
        self.gone.set()


def test_paho_sends_to_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt (the extra `mqtt`) is not installed")
    with Broker() as broker:
        mqtt = Mqtt(MqttSettings("127.0.0.1", broker.port, "car", "driver", "hunter2"))
        mqtt.publish("front", "event", {"kind": "fcw_on", "ttc_s": 2.1})
        mqtt.close()
        assert broker.gone.wait(5)
    assert b"driver" in broker.connect and b"hunter2" in broker.connect and b"car/status" in broker.connect  # the will
    assert broker.messages == [
        ("car/status", "online", True),
        ("car/front/event", '{"kind": "fcw_on", "ttc_s": 2.1}', False),
        ("car/status", "offline", True),
    ]
    came = capsys.readouterr()
    assert "hunter2" not in came.out + came.err


def test_a_broker_that_refuses_is_one_line() -> None:
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt (the extra `mqtt`) is not installed")
    with Broker(code=5) as broker, pytest.raises(InputError, match="does not let us in") as caught:
        Mqtt(MqttSettings("127.0.0.1", broker.port, username="driver", password="hunter2"))
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="does not let us in"):
        Mqtt(MqttSettings("127.0.0.1", 9))
