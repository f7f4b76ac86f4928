"""Settings from flags, environment and TOML: who wins, and that every mistake says where it is and no secret."""

import re
from ipaddress import ip_address

import pytest

from wgdisco import config
from wgdisco.config import PublicDns, load_join, load_public_dns, load_registry
from wgdisco.durations import parse_duration
from wgdisco.endpoint import Endpoint
from wgdisco.errors import ConfigError, LocalError
from wgdisco.keys import PrivateKey
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.offloads import Offloads

PRIVATE = PrivateKey(bytes(range(32))).to_text()
PUBLIC = PrivateKey(bytes(range(1, 33))).public_key().to_text()
CONF = f"[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.0.0.1/24\n[Peer]\nPublicKey = {PUBLIC}\n"


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """alice.conf, in a directory that stands for /etc/wgdisco too."""
    monkeypatch.setattr(config, "ETC", tmp_path)
    path = tmp_path / "alice.conf"
    path.write_text(CONF)
    return path


def flags(conf, **more) -> dict:
    return {"conf": str(conf), "zone": "example.com.", "dns": "198.51.100.1:53", **more}


def complaint(told, environment=None, load=load_join) -> str:
    with pytest.raises(ConfigError) as caught:
        load(told, environment or {})
    text = str(caught.value)
    assert "\n" not in text
    assert PRIVATE not in text
    assert caught.value.exit_code == 2
    return text


class TestPrecedence:
    def test_flags_are_enough(self, conf):
        settings = load_join(flags(conf), {})
        assert settings.interface == "alice"
        assert settings.zone.to_text() == "example.com."
        assert settings.dns == Endpoint.from_text("198.51.100.1:53")
        assert settings.conf.device.private_key.to_text() == PRIVATE
        assert settings.offloads == Offloads()

    def test_flag_over_variable_over_file(self, conf, tmp_path):
        (tmp_path / "alice.toml").write_text('zone = "file.example."\ndns = "192.0.2.1:1"\n')
        variables = {"WGDISCO_ZONE": "variable.example.", "WGDISCO_DNS": "192.0.2.2:2"}
        told = {"conf": str(conf)}
        assert load_join(told, {}).zone.to_text() == "file.example."
        assert load_join(told, variables).zone.to_text() == "variable.example."
        assert load_join({**told, "zone": "flag.example."}, variables).zone.to_text() == "flag.example."
        # each setting for itself
        assert str(load_join({**told, "zone": "flag.example."}, variables).dns) == "192.0.2.2:2"
        assert str(load_join({**told, "zone": "flag.example."}, {}).dns) == "192.0.2.1:1"

    def test_a_flag_not_given_and_an_empty_variable_say_nothing(self, conf, tmp_path):
        (tmp_path / "alice.toml").write_text('zone = "file.example."\n')
        settings = load_join(flags(conf, zone=None), {"WGDISCO_ZONE": ""})
        assert settings.zone.to_text() == "file.example."

    def test_the_file_of_a_named_interface_may_say_everything(self, conf, tmp_path):
        (tmp_path / "office.toml").write_text(f'conf = "{conf}"\nzone = "a.example"\ndns = "10.0.0.254"\n')
        for told, variables in (({"interface": "office"}, {}), ({}, {"WGDISCO_INTERFACE": "office"})):
            settings = load_join(told, variables)
            assert (settings.interface, settings.zone.to_text(), str(settings.dns)) == (
                "office",
                "a.example.",
                "10.0.0.254:53",
            )

    def test_the_interface_is_told_or_the_stem_of_the_conf(self, conf, tmp_path):
        assert load_join(flags(conf, interface="wg7"), {"WGDISCO_INTERFACE": "wg8"}).interface == "wg7"
        assert load_join(flags(conf), {"WGDISCO_INTERFACE": "wg8"}).interface == "wg8"
        (tmp_path / "alice.toml").write_text('interface = "wg9"\n')
        assert load_join(flags(conf), {}).interface == "wg9"

    def test_offloads_from_all_three(self, conf, tmp_path):
        file = tmp_path / "alice.toml"
        file.write_text('offload = "tso"\n')
        assert load_join(flags(conf), {}).offloads == Offloads(uso=False, udp_gso=False, udp_gro=False)
        assert load_registry(flags(conf), {"WGDISCO_OFFLOAD": "all"}).offloads == Offloads()
        assert load_join(flags(conf, offload="none"), {"WGDISCO_OFFLOAD": "all"}).offloads.to_text() == "none"
        assert complaint(flags(conf, offload="x")).startswith("--offload: offloads are tso, uso, udp_gso, udp_gro")
        file.write_text("offload = true\n")
        assert complaint(flags(conf)).startswith(f"{file}: offload: write it as text")

    def test_offloads_of_a_registry_of_its_own_store(self):
        assert config.load_offloads({}, {}) == Offloads()
        assert config.load_offloads({}, {"WGDISCO_OFFLOAD": "uso"}).to_text() == "uso"
        assert config.load_offloads({"offload": "none"}, {"WGDISCO_OFFLOAD": "uso"}).to_text() == "none"
        with pytest.raises(ConfigError, match="WGDISCO_OFFLOAD: offloads are"):
            config.load_offloads({}, {"WGDISCO_OFFLOAD": "gso"})

    def test_other_variables_are_none_of_ours(self, conf):
        variables = {"ZONE": "x.example", "WGDISCO_SELF": "rubbish", "WGDISCO_LAB": "1"}
        assert load_registry(flags(conf), variables).publish_self is False


class TestRegistry:
    @pytest.mark.parametrize(
        ("own", "publish", "endpoint"),
        [
            (None, False, None),
            (True, True, None),
            ("198.51.100.1:51820", True, "198.51.100.1:51820"),
            ("[2001:db8::1]:1", True, "[2001:db8::1]:1"),
        ],
    )
    def test_its_own_key(self, conf, own, publish, endpoint):
        settings = load_registry(flags(conf, self=own), {})
        assert settings.publish_self is publish
        assert settings.self_endpoint == (None if endpoint is None else Endpoint.from_text(endpoint))

    def test_from_the_file(self, conf, tmp_path):
        (tmp_path / "alice.toml").write_text("self = true\nwgsd_exact = true\n")
        settings = load_registry(flags(conf), {})
        assert (settings.publish_self, settings.exact) == (True, True)
        (tmp_path / "alice.toml").write_text("self = false\nwgsd_exact = false\n")
        settings = load_registry(flags(conf), {})
        assert (settings.publish_self, settings.exact) == (False, False)

    def test_mistakes_in_it(self, conf, tmp_path):
        assert complaint(flags(conf, self="nowhere"), load=load_registry).startswith("--self: 'nowhere' is not")
        file = tmp_path / "alice.toml"
        for text, name in (("self = 5", "self"), ("wgsd_exact = 1", "wgsd_exact"), ('self = "x"', "self")):
            file.write_text(text)
            assert complaint(flags(conf), load=load_registry).startswith(f"{file}: {name}: ")


class TestDnsAddress:
    @pytest.mark.parametrize(
        ("text", "address", "port"),
        [
            ("198.51.100.1:5353", "198.51.100.1", 5353),
            ("198.51.100.1", "198.51.100.1", 53),
            ("2001:db8::1", "2001:db8::1", 53),
            ("[2001:db8::1]", "2001:db8::1", 53),
            ("[2001:db8::1]:5353", "2001:db8::1", 5353),
            ("::ffff:192.0.2.1", "192.0.2.1", 53),
        ],
    )
    def test_good(self, conf, text, address, port):
        assert load_join(flags(conf, dns=text), {}).dns == Endpoint(ip_address(address), port)

    @pytest.mark.parametrize(
        "text", ["nonsense", "ns.example.com:53", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3:53", "[::1", "1.2.3.4:"]
    )
    def test_bad(self, conf, text):
        assert complaint(flags(conf, dns=text)) == f"--dns: {text!r} is not ADDRESS:PORT or [IPV6]:PORT"


class TestWhereAMistakeIs:
    def test_nothing_said_at_all(self):
        assert "--conf" in complaint({})

    @pytest.mark.parametrize("name", ["zone", "dns"])
    def test_a_missing_setting_is_named_with_an_example(self, conf, name):
        assert complaint(flags(conf, **{name: None})).startswith(f"--{name} is missing: for example --{name} ")

    def test_a_missing_conf(self, conf):
        told = {"interface": "office", "zone": "example.com", "dns": "192.0.2.1"}
        assert complaint(told).startswith("--conf is missing")

    def test_a_bad_zone_is_blamed_on_whoever_said_it(self, conf, tmp_path):
        assert complaint(flags(conf, zone="two..dots")).startswith("--zone: 'two..dots' is not a zone")
        told = flags(conf, zone=None)
        assert complaint(told, {"WGDISCO_ZONE": "a b"}).startswith("WGDISCO_ZONE: 'a b' is not a zone")
        file = tmp_path / "alice.toml"
        file.write_text('zone = "-"\n')
        assert complaint(told).startswith(f"{file}: zone: '-' is not a zone")

    @pytest.mark.parametrize("value", ["5", "true", "[]", '""', '"a\\u0000b"', '"a\\nb"'])
    @pytest.mark.parametrize("name", ["conf", "zone", "dns", "interface"])
    def test_a_value_of_another_kind_in_the_file(self, conf, tmp_path, name, value):
        file = tmp_path / "office.toml"
        others = {"conf": str(conf), "zone": "example.com", "dns": "192.0.2.1", "interface": "wg9"}
        del others[name]
        file.write_text("".join(f'{key} = "{text}"\n' for key, text in others.items()) + f"{name} = {value}\n")
        if name == "interface":
            # without --interface the file is found by the .conf's name
            told = {"conf": str(conf)}
            file.rename(tmp_path / "alice.toml")
            file = tmp_path / "alice.toml"
        else:
            told = {"interface": "office"}
        assert complaint(told).startswith(f"{file}: {name}: ")

    def test_a_file_that_is_no_toml_is_named_with_the_line(self, conf, tmp_path):
        file = tmp_path / "alice.toml"
        file.write_text('zone = "example.com"\ndns =\n')
        text = complaint(flags(conf))
        assert text.startswith(f"{file}: not TOML: ")
        assert "line 2" in text
        file.write_bytes(b"\xff\xfe\x00")
        assert complaint(flags(conf)) == f"{file}: not a text file"
        file.unlink()
        file.mkdir()
        assert complaint(flags(conf)) == f"{file}: cannot read it: Is a directory"

    def test_an_unknown_setting_is_named_and_so_are_the_known(self, conf, tmp_path):
        (tmp_path / "alice.toml").write_text('zones = "example.com"\n')
        text = complaint(flags(conf))
        assert "unknown setting 'zones'" in text
        assert "zone" in text

    def test_a_key_pasted_into_the_file_is_not_shown(self, conf, tmp_path):
        file = tmp_path / "alice.toml"
        for pasted in (f'"{PRIVATE}" = 1', f"{PRIVATE}", f"PrivateKey = {PRIVATE}", f'PrivateKey = "{PRIVATE}"'):
            file.write_text(pasted + "\n")
            text = complaint(flags(conf))
            assert text.startswith(str(file))
            assert PRIVATE.rstrip("=") not in text

    @pytest.mark.parametrize(
        "name", ["", "..", ".", "a/b", "../../tmp/x", "sixteen-letters-x", "all", "default", "a b", "ä", "a\nb"]
    )
    def test_a_name_no_interface_can_have(self, conf, name):
        assert complaint(flags(conf, interface=name)).startswith(f"--interface: {name!r} cannot name an interface")

    def test_a_conf_whose_name_no_interface_can_have(self, conf, tmp_path):
        path = tmp_path / "a name too long for it.conf"
        conf.rename(path)
        text = complaint(flags(path))
        assert text.startswith(f"--conf '{path}': ")
        assert text.endswith("give --interface NAME")
        assert load_join(flags(path, interface="wg0"), {}).interface == "wg0"


class TestTheConf:
    def test_missing_directory_binary(self, conf, tmp_path):
        assert (
            complaint(flags(tmp_path / "no.conf")) == f"{tmp_path}/no.conf: cannot read it: No such file or directory"
        )
        assert complaint(flags(tmp_path, interface="a")) == f"{tmp_path}: cannot read it: Is a directory"
        conf.write_bytes(b"[Interface]\n\xff\xfe\n")
        assert complaint(flags(conf)).startswith(f"{conf}:2: this is neither")

    def test_malformed_at_a_line(self, conf):
        conf.write_text(CONF + "\n# more\nAllowedIPs = 10.0.0.300/32\n")
        assert complaint(flags(conf)).startswith(f"{conf}:8: ")

    @pytest.mark.parametrize("line", [PRIVATE, f"PrivateKey {PRIVATE}", f"Endpoint = {PRIVATE}", f"MTU = {PRIVATE}"])
    def test_a_key_in_the_wrong_place_is_not_shown(self, conf, line):
        conf.write_text(f"[Interface]\nPrivateKey = {PRIVATE}\n[Peer]\nPublicKey = {PUBLIC}\n{line}\n")
        assert complaint(flags(conf)).startswith(f"{conf}:5: ")

    def test_commands_are_not_run_and_not_passed_over(self, conf):
        conf.write_text(CONF.replace("Address", "PostUp = touch /tmp/x\nAddress"))
        assert complaint(flags(conf)).startswith(f"{conf}:3: PostUp is not supported yet")

    @pytest.mark.parametrize("text", ["", "[Interface]\n", f"[Interface]\nPrivateKey = {'A' * 43}=\n"])
    def test_without_a_private_key(self, conf, text):
        conf.write_text(text)
        assert complaint(flags(conf)).startswith(f"{conf}: it has no PrivateKey")

    def test_an_endpoint_by_name_is_looked_up(self, conf):
        conf.write_text(CONF + "Endpoint = localhost:51820\n")
        (peer,) = load_join(flags(conf), {}).conf.device.peers
        assert peer.endpoint is not None
        assert (peer.endpoint.address.is_loopback, peer.endpoint.port) == (True, 51820)

    def test_bytes_of_any_kind_in_a_comment_and_a_service_for_a_port(self, conf):
        conf.write_bytes(CONF.encode() + b"# caf\xe9\r\nEndpoint = [::1]:domain\r\n")
        (peer,) = load_join(flags(conf), {}).conf.device.peers
        assert str(peer.endpoint) == "[::1]:53"

    @pytest.mark.parametrize("host", ["two..dots", "a" * 64 + ".example"])
    def test_a_name_that_cannot_be_looked_up_is_a_mistake_and_no_crash(self, conf, host):
        conf.write_text(CONF + f"Endpoint = {host}:51820\n")
        text = complaint(flags(conf))
        assert text.startswith(f"{conf}: Endpoint {host}:51820 of peer {PUBLIC}")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800)])
def test_a_time_is_a_number_and_a_unit(text, seconds):
    assert parse_duration("--expires", text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "1.5h", "7 d", "7D", "9999999s", "٣d"])
def test_anything_else_is_no_time(text):
    with pytest.raises(ConfigError, match=r"--offline-trust: .* is not a time: write 30m, 24h or 7d"):
        parse_duration("--offline-trust", text)


class TestEngines:
    def test_an_interface_that_is_up(self, conf):
        told = load_join({"interface": "wg0", "engine": "kernel", "zone": "example.com.", "dns": "198.51.100.1"}, {})
        assert isinstance(told, config.AttachSettings)
        assert (told.interface, told.engine, told.dns.port) == ("wg0", EngineKind.KERNEL, 53)

    def test_a_conf_on_another_engine(self, conf):
        told = load_join(flags(conf, engine="auto"), {})
        assert isinstance(told, config.Settings)
        assert told.engine is EngineKind.AUTO

    def test_no_such_engine(self, conf):
        assert "there is no such engine" in complaint(flags(conf), {"WGDISCO_ENGINE": "hamster"})

    def test_ours_for_a_conf(self, conf):
        for load in (load_join, load_registry):
            for engine in (None, "auto", "userspace"):
                assert load(flags(conf, engine=engine), {}).conf is not None

    def test_a_registry_of_an_interface(self, conf):
        told = {"interface": "wg0", "zone": "example.com.", "dns": "198.51.100.1", "self": True}
        settings = load_registry({**told, "engine": "kernel"}, {})
        assert (settings.conf, settings.engine, settings.publish_self) == (None, EngineKind.KERNEL, True)
        settings = load_registry(flags(conf), {"WGDISCO_ENGINE": "external"})
        assert (settings.conf is None, settings.engine) == (False, EngineKind.EXTERNAL)

    def test_what_is_there_is_taken(self, monkeypatch, tmp_path):
        told = {"interface": "lo", "zone": "example.com.", "dns": "198.51.100.1"}
        monkeypatch.setattr(config, "SOCKETS", tmp_path)
        assert load_registry(told, {}).engine is EngineKind.KERNEL
        (tmp_path / "lo.sock").touch()
        assert load_registry(told, {}).engine is EngineKind.EXTERNAL
        assert load_join(told, {}).engine is EngineKind.EXTERNAL

    def test_nothing_is_there(self):
        told = {"interface": "wg-none", "zone": "example.com.", "dns": "198.51.100.1"}
        assert "there is no interface wg-none to take as it is" in complaint(told, load=load_registry)


class TestSecondaries:
    KEY = 'key "k" { algorithm hmac-sha256; secret "c2l4dGVlbiBieXRlcyBhcmUgZW5vdWdoIQ=="; };'

    @pytest.fixture
    def key(self, tmp_path):
        path = tmp_path / "k.key"
        path.write_text(self.KEY)
        return str(path)

    def test_none(self, conf):
        assert load_registry(flags(conf), {}).secondaries is None
        assert load_public_dns({}, {}).secondaries is None

    def test_by_flag_variable_and_file(self, conf, tmp_path, key):
        wanted = (Endpoint.from_text("192.0.2.1:53"), Endpoint.from_text("[2001:db8::1]:5353"))
        texts = ["192.0.2.1", "[2001:db8::1]:5353"]
        told = load_registry(flags(conf, secondary=texts, tsig_key=key), {}).secondaries
        assert told.endpoints == wanted
        assert told.key.name.to_text() == "k."
        assert told.is_full
        variables = {"WGDISCO_SECONDARY": " ".join(texts)}
        assert load_registry(flags(conf), variables).secondaries.endpoints == wanted
        (tmp_path / "alice.toml").write_text(f'secondary = ["{texts[0]}", "{texts[1]}"]\ntsig_key = "{key}"\n')
        assert load_registry(flags(conf), {}).secondaries == told

    def test_of_a_registry_of_its_own_store_get_what_is_published(self, key):
        told = load_public_dns({"secondary": ["192.0.2.1"], "tsig_key": key, "publish": ["alice"]}, {})
        assert (told.listen, told.published, told.secondaries.is_full) == (None, frozenset({"alice"}), False)
        variables = {"WGDISCO_SECONDARY": "192.0.2.1", "WGDISCO_PUBLIC_ZONE": "full"}
        assert load_public_dns({}, variables).secondaries.is_full

    def test_mistakes(self, conf, tmp_path, key):
        def said(**more):
            return complaint(flags(conf, **more), load=load_registry)

        assert said(secondary=["ns.example.net"]).startswith("--secondary: 'ns.example.net' is not ADDRESS:PORT")
        assert said(tsig_key=key).startswith("--tsig-key: it is for secondaries")
        assert "No such file" in said(secondary=["192.0.2.1"], tsig_key=str(tmp_path / "none"))
        (tmp_path / "k.key").write_text(self.KEY.replace("sha256", "md5"))
        text = said(secondary=["192.0.2.1"], tsig_key=key)
        assert "not a TSIG key: the algorithm must be one of hmac-sha256" in text
        assert "c2l4" not in text
        (tmp_path / "k.key").write_bytes(b"\xff")
        assert "not a TSIG key" in said(secondary=["192.0.2.1"], tsig_key=key)
        (tmp_path / "alice.toml").write_text("secondary = 7\n")
        assert "write an address, or a list of them" in said()


class TestPublicDns:
    def test_without_an_address_strangers_are_not_answered(self):
        assert load_public_dns({}, {}).listen is None

    def test_flags_win_over_the_environment(self):
        told = {"dns": "192.0.2.1", "publish": ["alice", "bob"], "public_zone": "full"}
        found = load_public_dns(told, {"WGDISCO_DNS": "192.0.2.2:5353", "WGDISCO_PUBLISH": "carol"})
        assert found == PublicDns(Endpoint.from_text("192.0.2.1:53"), frozenset({"alice", "bob"}), True, None)
        variables = {"WGDISCO_DNS": "192.0.2.2:5353", "WGDISCO_PUBLISH": "carol dave"}
        found = load_public_dns({}, variables)
        assert found == PublicDns(Endpoint.from_text("192.0.2.2:5353"), frozenset({"carol", "dave"}), False, None)

    @pytest.mark.parametrize(
        ("told", "variables", "said"),
        [
            ({"publish": ["alice"]}, {}, "give where with --dns ADDRESS:PORT"),
            ({"public_zone": "full"}, {}, "give where with --dns ADDRESS:PORT"),
            ({"dns": "192.0.2.1", "publish": ["Alice!"]}, {}, "cannot be a name"),
            ({"dns": "somewhere"}, {}, "--dns: "),
            ({}, {"WGDISCO_DNS": "somewhere"}, "WGDISCO_DNS: "),
            ({"dns": "192.0.2.1"}, {"WGDISCO_PUBLIC_ZONE": "some"}, "WGDISCO_PUBLIC_ZONE: 'some' is neither"),
        ],
    )
    def test_a_mistake_is_named(self, told, variables, said):
        with pytest.raises(LocalError, match=re.escape(said)):
            load_public_dns(told, variables)

    @pytest.mark.parametrize("told", [{"publish": ["alice"]}, {"public_zone": "full"}])
    def test_beside_a_conf_all_is_told_anyway(self, conf, told):
        with pytest.raises(ConfigError, match="tells all of the zone to whoever asks"):
            load_registry(flags(conf, **told), {})


class TestMetrics:
    @pytest.mark.parametrize(
        ("text", "endpoint"),
        [
            ("9586", "127.0.0.1:9586"),
            ("10.0.0.1:9586", "10.0.0.1:9586"),
            ("[::1]:9586", "[::1]:9586"),
            ("0.0.0.0:9586", "0.0.0.0:9586"),
        ],
    )
    def test_a_port_is_the_loopbacks_and_an_address_is_meant(self, text, endpoint):
        assert config.load_metrics({"metrics": text}, {}, None) == Endpoint.from_text(endpoint)
        assert config.load_metrics({}, {"WGDISCO_METRICS": text}, None) == Endpoint.from_text(endpoint)

    def test_nothing_unless_it_is_asked_for_and_what_was_kept_until_it_is_taken_back(self):
        kept = Endpoint.from_text("127.0.0.1:9586")
        assert config.load_metrics({}, {}, None) is None
        assert config.load_metrics({}, {}, kept) == kept
        assert config.load_metrics({"metrics": "none"}, {}, kept) is None

    @pytest.mark.parametrize("text", ["", "0", "65536", "host:9586", ":9586", "*:9586", "9586 ", "٩"])
    def test_anything_else_is_one_line(self, text):
        with pytest.raises(ConfigError, match=r"--metrics: .* is not PORT, ADDRESS:PORT or none"):
            config.load_metrics({"metrics": text}, {}, None)
