"""Names of providers: one provider however it is spelled, and never two that are one (S14, S15)."""

import pytest

from jobs.credential import SecretReference
from jobs.names import ProviderName
from jobs.providers.registry import ProviderFault, Registry, UnknownProvider, builtin_rows
from jobs.providers.rows import ProviderRow
from jobs.request import ApiMode

URL = "http://localhost:8080/v1"
KEY = SecretReference("env", "SOME_KEY")


def custom(
    registry: Registry, name: str | None, url: str, key: SecretReference | None = None
) -> ProviderName:
    """Take in one inline target that speaks chat completions."""
    return registry.add_custom(name=name, base_url=url, key=key, api_mode=ApiMode.CHAT_COMPLETIONS)


@pytest.mark.parametrize(
    "text",
    ["zai", "Z.AI", "z_ai", " Z AI ", "z--ai", "GLM", "\uff3a\uff21\uff29", "zhipu", "BigModel", "z.-_ ai"],
)
def test_every_spelling_is_one_provider(text: str) -> None:
    """Case, width, blanks, dots, underscores and aliases make no difference."""
    assert Registry().canonical(text) == "zai"


def test_every_alias_in_the_table_leads_to_its_provider() -> None:
    """No alias of the built-in rows is taken twice or hides a name."""
    registry = Registry()
    for name, row in builtin_rows().items():
        for spelled in (
            name,
            name.upper(),
            name.replace("-", "_"),
            *row.aliases,
            *map(str.title, row.aliases),
        ):
            assert registry.canonical(spelled) == name


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    """A typing mistake is met with the name that was meant."""
    with pytest.raises(UnknownProvider, match="did you mean deepseek"):
        Registry().canonical("depseek")


def test_two_entries_of_one_provider_are_refused() -> None:
    """`zai` and `Z.AI` are one provider, so the second entry has nothing of its own."""
    registry = Registry()
    registry.add("zai", ProviderRow(stream=True))
    with pytest.raises(ProviderFault, match="one provider, zai"):
        registry.add("Z.AI", ProviderRow(stream=True))


def test_a_base_url_under_a_known_name_refines_it() -> None:
    """Without `new: true` the built-in provider is meant, address and all."""
    registry = Registry()
    assert registry.add("kimi", ProviderRow(base_url="https://kimi.example/v1")) == "moonshot"
    assert registry.target("moonshot", "k2").base_url == "https://kimi.example/v1"


def test_a_new_provider_may_take_an_alias() -> None:
    """With `new: true` the name is the user's, and the built-in provider keeps its own."""
    registry = Registry()
    assert registry.add("kimi", ProviderRow(base_url=URL, new=True, auth="none")) == "kimi"
    assert registry.target("KIMI", "m").base_url == URL
    assert registry.target("moonshot", "m").base_url == "https://api.moonshot.ai/v1"


def test_one_endpoint_in_two_spellings_is_one_provider() -> None:
    """Case of the host, a default port and a trailing slash do not make another endpoint."""
    registry = Registry()
    assert custom(registry, None, "http://Example.org:80/v1/") == custom(
        registry, None, "http://example.org/v1"
    )


def test_two_endpoints_of_one_host_stay_two() -> None:
    """A shared host or key does not make one provider of two."""
    registry = Registry()
    one, two = custom(registry, None, f"{URL}/a", KEY), custom(registry, None, f"{URL}/b", KEY)
    assert one != two
    assert registry.provider(one).credentials[0].provider == one


def test_two_names_at_one_address_are_two_accounts() -> None:
    """With a name the address is no identity."""
    registry = Registry()
    assert custom(registry, "mine", URL, KEY) != custom(registry, "yours", URL, KEY)


@pytest.mark.parametrize(("url", "key"), [("http://localhost:9090/v1", KEY), (URL, None)])
def test_one_name_for_two_endpoints_is_refused(url: str, key: SecretReference | None) -> None:
    """The same name with another address or another key asks for distinct names."""
    registry = Registry()
    custom(registry, "local", URL, KEY)
    with pytest.raises(ProviderFault, match="custom:local") as refused:
        custom(registry, "Local", url, key)
    assert "its own name" in refused.value.mend


def test_a_custom_target_is_never_plain_custom() -> None:
    """It has a name of its own, by which it can be called."""
    registry = Registry()
    assert custom(registry, "My Box", URL) == "custom:my-box"
    assert registry.canonical("Custom:My_Box") == "custom:my-box"
    with pytest.raises(UnknownProvider):
        registry.canonical("custom")


@pytest.mark.parametrize("entry", ["custom", "a b!", "custom:x", "---", "日本"])
def test_names_that_cannot_be_are_refused(entry: str) -> None:
    """A provider's own name is of a-z, 0-9 and hyphens."""
    with pytest.raises(ProviderFault, match="cannot be a provider's name"):
        Registry().add(entry, ProviderRow(base_url=URL))


def test_an_alias_that_means_another_provider_is_refused() -> None:
    """Two of the user's providers cannot share an alias, nor take a built-in's name in passing."""
    registry = Registry()
    registry.add("one", ProviderRow(base_url=URL, aliases=("shared",)))
    for alias in ("shared", "openai", "one"):
        with pytest.raises(ProviderFault, match="already means"):
            registry.add(f"two-{alias}", ProviderRow(base_url=URL, aliases=(alias,)))


def test_a_provider_without_a_key_is_no_target() -> None:
    """No key configured at all is a fault of the file."""
    registry = Registry()
    registry.add("bare", ProviderRow(base_url=URL))
    with pytest.raises(ProviderFault, match="no key is configured"):
        registry.target("bare", "m")
