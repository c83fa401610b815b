"""What the edges need to know: Kafka, PostgreSQL, the agent, the bridge, the scheduler."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from vacancy.schemas.units import Duration

Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Strategy = Literal["spread", "pack", "random"]
HostId = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}$")]


class Section(BaseModel):
    """A section of the settings: frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSecurity(Section):
    """TLS and authentication for Kafka; the job reads the files on its job manager and task managers."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="Whether the connection is encrypted (SSL) and authenticated (SASL)."
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="SASL mechanism, for the SASL_* protocols."
    )
    username: str | None = Field(default=None, description="SASL user.")
    password: SecretStr | None = Field(default=None, description="SASL password; better in the environment.")
    ca_file: Path | None = Field(default=None, description="PEM file with the authorities that sign the brokers.")
    certificate_file: Path | None = Field(
        default=None, description="PEM file with this client's certificate and its intermediates, for mutual TLS."
    )
    key_file: Path | None = Field(
        default=None, description="PEM file with that certificate's private key, in PKCS #8 (`BEGIN … PRIVATE KEY`)."
    )
    key_password: SecretStr | None = Field(
        default=None, description="Password of an encrypted `key_file`; the job's key file must not be encrypted."
    )

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        """Refuses what the clients would ignore silently: a login without SASL, TLS files without TLS."""
        mistakes = []
        login = ("mechanism", "username", "password")
        files = ("ca_file", "certificate_file", "key_file", "key_password")
        if self.protocol.startswith("SASL"):
            mistakes += [f"{name} is missing, {self.protocol} needs it" for name in login if not getattr(self, name)]
        else:
            mistakes += [
                f"{name} is set, but {self.protocol} asks for none; set protocol to SASL_SSL"
                for name in login
                if getattr(self, name) is not None
            ]
        if not self.protocol.endswith("SSL"):
            mistakes += [
                f"{name} is set, but {self.protocol} is not encrypted; set protocol to SSL or SASL_SSL"
                for name in files
                if getattr(self, name) is not None
            ]
        if (self.certificate_file is None) != (self.key_file is None):
            mistakes.append("certificate_file and key_file need each other")
        if self.key_password is not None and self.key_file is None:
            mistakes.append("key_password is set without key_file")
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


class KafkaSettings(Section):
    """The topics and the brokers that hold them."""

    bootstrap_servers: str = Field(default="127.0.0.1:9092", description="Brokers to ask first: host:port, ...")
    usage_topic: Topic = Field(default="vacancy.usage", description="What each host has in use, every interval.")
    inventory_topic: Topic = Field(default="vacancy.inventory", description="What each host is; compacted.")
    dead_letter_topic: Topic = Field(
        default="vacancy.dead-letters", description="What is put aside: bad records and refused rows."
    )
    partitions: int = Field(default=4, ge=1, le=10_000, description="Partitions of a topic that is created.")
    replication_factor: int = Field(default=1, ge=1, le=100, description="Replicas of a topic that is created.")
    schema_registry_url: str | None = Field(
        default=None, description="URL of a Confluent schema registry. If set, events use Confluent's wire format."
    )
    security: KafkaSecurity = KafkaSecurity()


class PostgresSettings(Section):
    """One connection string per role (libpq's key/value or URI form), each with that role's password if it has one."""

    owner_dsn: SecretStr = Field(
        default=SecretStr("postgresql://127.0.0.1/vacancy"), description="Owns the tables: `vacancy migrate`."
    )
    job_dsn: SecretStr = Field(
        default=SecretStr("postgresql://vacancy_job@127.0.0.1/vacancy"), description="Writes the tables: the job."
    )
    scheduler_dsn: SecretStr = Field(
        default=SecretStr("postgresql://vacancy_scheduler@127.0.0.1/vacancy"), description="Reads and claims."
    )
    reader_dsn: SecretStr = Field(
        default=SecretStr("postgresql://vacancy_reader@127.0.0.1/vacancy"), description="Reads: `vacancy hosts`."
    )
    connect_timeout: Duration = Field(
        default=timedelta(seconds=5),
        description="How long to wait for the server, or for all servers of a connection string together.",
    )


class AgentSettings(Section):
    """What an agent sends, and how often."""

    host_id: HostId | None = Field(
        default=None, description="Stable identity of this node. Unset: made from the machine id."
    )
    host_id_file: Path | None = Field(
        default=None,
        description="File to read the host id from instead: nova-compute's is `compute_id` in its `state_path`"
        " (`/var/lib/nova/compute_id`).",
    )
    name: str | None = Field(default=None, description="The node's name in the scheduler. Unset: the host name.")
    zone: str | None = Field(default=None, description="Availability zone.")
    aggregates: tuple[str, ...] = Field(default=(), description="UUIDs of the node's host aggregates.")
    traits: tuple[str, ...] = Field(default=(), description="Traits in addition to those that the collector finds.")
    interval: Duration = Field(
        default=timedelta(seconds=1),
        description="Time between two looks at the node. Each is sent, unless `agent.tolerance` is set.",
    )
    tolerance: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="How far a figure of the node's row may drift before a look is sent: fractions as they are, amounts"
        " as shares of their capacity, bytes a second as shares of themselves or of 125 MB/s, whichever is more. 0:"
        " each look is sent.",
    )
    max_silence: Duration = Field(
        default=timedelta(seconds=10),
        description="With `agent.tolerance`, a look is sent after this time in any case. At most half of `job.window`"
        " and of `scheduler.max_age`.",
    )
    inventory_interval: Duration = Field(
        default=timedelta(minutes=5), description="Time between two inventory events if nothing changes."
    )
    collector: str = Field(
        default="host",
        pattern=r"^(host|libvirt|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$",
        description="Source of the figures: `host`, the kernel alone; `libvirt`, the kernel and libvirt, on a"
        " hypervisor; or `module:Class`, a collector of your own.",
    )
    libvirt_uri: str = Field(
        default="qemu:///system", description="URI of this node's own libvirt, for `agent.collector` `libvirt`."
    )
    buffer_events: int = Field(
        default=600,
        ge=1,
        le=1_000_000,
        description="Most usage events kept while the broker is away; then the oldest are dropped.",
    )
    metrics_port: int | None = Field(
        default=None, ge=1, le=65_535, description="Port of the agent's Prometheus metrics. Unset: no metrics."
    )
    metrics_address: str = Field(
        default="127.0.0.1",
        description="Address on which `agent.metrics_port` listens; `0.0.0.0` lets a Prometheus elsewhere read it.",
    )
    disk_path: Path = Field(default=Path("/"), description="A path on the file system of the instances' disks.")
    disk_pools: tuple[str, ...] = Field(
        default=(),
        description="Storage pools of libvirt that hold the disks of instances, for `agent.collector` `libvirt`. Unset:"
        " the file system of `agent.disk_path`.",
    )
    disk_pool: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="Name or host id of the storage pool that the instances' disks come from and that hosts share."
        " The host then has no disk of its own, and a claim takes its disk from the pool. Unset: the disk is its own.",
    )
    reports_disk_pool: bool = Field(
        default=False,
        description="Whether this agent reports `agent.disk_pool` itself, as what it reads of `agent.disk_path` or"
        " `agent.disk_pools`. Set it on one host of each pool that nothing else reports.",
    )
    disk_pool_aggregates: tuple[str, ...] = Field(
        default=(),
        description="UUIDs of the host aggregates that share the pool, for `agent.reports_disk_pool`. Empty: every host"
        " that names it.",
    )
    reserved_vcpus: int = Field(default=0, ge=0, description="VCPUs reserved for the host itself.")
    reserved_memory_mb: int = Field(default=512, ge=0, description="MiB of memory reserved for the host itself.")
    reserved_disk_gb: int = Field(default=0, ge=0, description="GiB of disk reserved for the host itself.")
    vcpu_allocation_ratio: float = Field(default=1.0, gt=0, le=1000, description="How often a VCPU may be allocated.")
    memory_allocation_ratio: float = Field(default=1.0, gt=0, le=1000, description="How often memory may be allocated.")
    disk_allocation_ratio: float = Field(default=1.0, gt=0, le=1000, description="How often disk may be allocated.")

    @property
    def reporting_interval(self) -> timedelta:
        """Most time between two usage events."""
        return max(self.interval, self.max_silence) if self.tolerance else self.interval

    @model_validator(mode="after")
    def _names_its_pool(self) -> Self:
        """Refuses to report a pool without a name."""
        if self.disk_pool is None and (self.reports_disk_pool or self.disk_pool_aggregates):
            raise ValueError("reports_disk_pool and disk_pool_aggregates are about disk_pool, which is not set")
        return self


class BridgeSettings(Section):
    """`vacancy bridge`, which uses a cloud's notifications instead of agents."""

    nova_conf: Path = Field(
        default=Path("/etc/nova/nova.conf"),
        description="nova.conf, or a file with its `transport_url`, `[oslo_messaging_*]` and `[placement]`, and also"
        " `[nova]` if Nova's API needs other credentials than Placement.",
    )
    transport_url: SecretStr | None = Field(
        default=None,
        description="Source of the notifications, as an oslo.messaging URL. Unset: as `bridge.nova_conf` says.",
    )
    exchange: str = Field(default="nova", description="Exchange that Nova sends to: its `control_exchange`.")
    topics: tuple[str, ...] = Field(
        default=("versioned_notifications",), description="Nova's `versioned_notifications_topics` to listen to."
    )
    ceilometer_exchange: str = Field(default="ceilometer", description="Exchange that Ceilometer sends to.")
    ceilometer_topics: tuple[str, ...] = Field(
        default=(), description="Topics of Ceilometer's notifier publisher, usually `metering`. Empty: no samples."
    )
    queue: str = Field(
        default="vacancy",
        min_length=1,
        description="Name of the bridge's own queue, so that it takes no notifications away from other listeners.",
    )
    interval: Duration = Field(
        default=timedelta(seconds=10),
        description="Time between two readings of Nova's services: a host is alive if its service has reported, which"
        " it does every `report_interval`.",
    )
    resync_interval: Duration = Field(
        default=timedelta(minutes=5), description="Time between two full readings of Placement and Nova."
    )
    metrics_port: int | None = Field(
        default=None, ge=1, le=65_535, description="Port of the bridge's Prometheus metrics. Unset: no metrics."
    )
    metrics_address: str = Field(
        default="127.0.0.1",
        description="Address on which `bridge.metrics_port` listens; `0.0.0.0` lets a Prometheus elsewhere read it.",
    )


class StorageSettings(Section):
    """Cinder, whose pools `vacancy storage` reports."""

    auth: dict[str, SecretStr] = Field(
        default={},
        description="How to log in, by keystoneauth1's names: `auth_type` (`password` by default), `auth_url`,"
        " `username`, `password`, `project_name`, `user_domain_name`, `project_domain_name` and so on.",
    )
    endpoint: str | None = Field(
        default=None, description="URL of Cinder's API, including its version. Unset: the one in Keystone's catalogue."
    )
    region: str | None = Field(default=None, description="Region of the catalogue.")
    interface: str = Field(default="internal", description="Interface of the catalogue.")
    ca_file: Path | None = Field(
        default=None, description="PEM file with the authorities that sign Keystone's and Cinder's certificates."
    )
    timeout: Duration = Field(default=timedelta(seconds=10), description="How long to wait for an answer.")
    interval: Duration = Field(default=timedelta(seconds=10), description="Time between two readings of the pools.")
    inventory_interval: Duration = Field(
        default=timedelta(minutes=5), description="Time between two inventory events of a pool that does not change."
    )
    max_report_age: Duration = Field(
        default=timedelta(minutes=3),
        description="A pool is not sent, and so becomes stale, if its volume service last reported to Cinder longer ago"
        " than this.",
    )
    max_over_subscription_ratio: float | Literal["auto"] = Field(
        default=20.0, description="As Cinder's option of this name, for pools that do not report their own."
    )
    aggregates: dict[str, tuple[str, ...]] = Field(
        default={},
        description="UUIDs of the host aggregates that share each pool, by pool name; `*` stands for any text, `?` for"
        ' any character: `"*@ceph#*" = ["…"]`.',
    )


class SchedulerSettings(Section):
    """How schedulers pick and claim; a request may override it."""

    max_age: Duration = Field(
        default=timedelta(seconds=30), description="A host that has not reported for this long is not picked."
    )
    claim_ttl: Duration = Field(
        default=timedelta(minutes=2),
        description="How long a claim counts if its host never reports the consumer; must be longer than an instance"
        " takes to start.",
    )
    sample: int = Field(
        default=24,
        ge=1,
        le=10_000,
        description="Hosts to examine for a claim; if none of them fits, 16 times as many, and only then all.",
    )
    strategy: Strategy = Field(
        default="spread", description="Which of the fitting hosts to pick: the emptiest, the fullest or a random one."
    )
    connections: int = Field(default=4, ge=1, le=1000, description="Most connections that one scheduler process opens.")
    statement_timeout: Duration = Field(
        default=timedelta(seconds=5),
        description="How long one try of a call to the database may take; the server ends it then, or else the client"
        " a second later.",
    )
    retry_for: Duration = Field(
        default=timedelta(seconds=15),
        description="How long a call is tried again while the database is away or busy; the last try may take"
        " `scheduler.statement_timeout` longer.",
    )


class ExtenderSettings(Section):
    """The scheduler extender for Kubernetes."""

    answer_within: Duration = Field(
        default=timedelta(milliseconds=700),
        description="How long reading the table may take for one request of kube-scheduler; without it all nodes pass."
        " Must be shorter than the `httpTimeout` of the extender in kube-scheduler's configuration.",
    )
