"""Events as JSON to an MQTT broker, by paho-mqtt (the extra `mqtt`). User name and password are never logged."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from edgecnn.errors import InputError, MissingDependency

CONNECT_S = 5.0


@dataclass(frozen=True)
class MqttSettings:
    """Where messages go: TOPIC/STREAM/event, TOPIC/STREAM/mode, TOPIC/status."""

    host: str
    port: int = 1883
    topic: str = "edgecnn"
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.host or not 0 < self.port < 65536:
            raise InputError(f"an MQTT broker at '{self.host}', port {self.port}", wanted="a host, and a port to 65535")
        if not self.topic or set(self.topic) & set("#+\0") or self.topic.startswith(("/", "$")):
            raise InputError(f"the MQTT topic '{self.topic}'", wanted="a name without #, + and a leading / or $")


class Mqtt:
    """One connection for all streams; paho keeps it in a thread of its own and connects again after a loss.

    TOPIC/status is "online" while we are, and the broker itself makes it "offline" when we vanish: silence is no sign
    that all is well. `client` stands in for paho's. Raises MissingDependency without paho-mqtt, InputError where the
    broker does not let us in at the start.
    """

    def __init__(self, settings: MqttSettings, client: Any = None) -> None:
        self.settings, self.lost = settings, 0
        self._status = f"{settings.topic}/status"
        self._client = client if client is not None else self._connected()

    def publish(self, stream: str, what: str, data: Mapping[str, Any]) -> None:
        """One message at QoS 0; the mode is retained. One that can't be sent now is counted in `lost`."""
        topic = f"{self.settings.topic}/{stream}/{what}"
        sent = self._client.publish(topic, json.dumps(data, allow_nan=False), qos=0, retain=what == "mode")
        self.lost += bool(sent.rc)

    def close(self) -> None:
        self._client.publish(self._status, "offline", qos=0, retain=True)
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self) -> Any:
        s, came, answers = self.settings, threading.Event(), list[Any]()
        try:
            paho = import_module("paho.mqtt.client")
        except ImportError as error:
            raise MissingDependency("--mqtt needs paho-mqtt", do="Run: pip install 'edgecnn[mqtt]'") from error

        def connected(client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            answers.append(reason)
            if not reason.is_failure:
                client.publish(self._status, "online", qos=0, retain=True)
            came.set()

        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.connect_timeout = CONNECT_S
        client.on_connect = connected
        client.will_set(self._status, "offline", qos=0, retain=True)
        if s.username:
            client.username_pw_set(s.username, s.password or None)
        reason = "no answer"
        try:
            client.connect(s.host, s.port)
            client.loop_start()
            if came.wait(CONNECT_S) and not answers[0].is_failure:
                return client
            reason = str(answers[0]) if answers else reason
        except (OSError, ValueError) as error:
            reason = str(error)
        client.loop_stop()
        raise InputError(f"the MQTT broker {s.host}:{s.port} does not let us in ({reason})", wanted="one that does")
