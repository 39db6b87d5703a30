"""Who is asked in the randomised world: accounts that share all that may be shared, told without the product.

What stands here is what a person would write down by the specification: the canonical name of every spelling,
who holds which secret at which address. The registry reads the same facts as configuration; the oracle never
asks the registry.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from jobs.credential import SecretReference, Strategy
from jobs.providers.registry import Registry
from jobs.providers.rows import CredentialRow, OAuthRow, ProviderRow
from jobs.request import ApiMode

URLS = tuple(f"https://{host}.example/v1" for host in ("api", "shared", "gateway", "local", "eu"))
MODELS = ("m", "m-large", "glm-5")
GROUPS = (None, None, "team", "main", "org")
LABELS = ("main", "spare", "team", "third")
VINTAGES = 3
NAMES: dict[str, tuple[str, ...]] = {
    "openai": ("openai", "OpenAI", " open ai ", "openai_api", "Open-AI"),
    "openai-codex": ("openai-codex", "Codex", "ChatGPT Codex", "chatgpt_codex", "OPENAI.CODEX"),
    "nous": ("nous", "Nous Portal", "nous__portal", "NousResearch"),
    "zai": ("zai", "z.ai", "Z_AI", "Zhipu", "zhipuai", "BigModel"),
    "openrouter": ("openrouter", "Open Router", "open.router", "OR"),
    "anthropic": ("anthropic", "Claude", "CLAUDE"),
    "gemini": ("gemini", "Google", "google_ai.studio"),
    "mistral": ("mistral", "MistralAI", "mistral ai"),
    "moonshot": ("moonshot", "Kimi", "moonshotai"),
    "moonshot-cn": ("moonshot-cn", "kimi.cn", "Kimi CN"),
    "together": ("together", "Together.AI", "together_ai"),
    "glm": ("glm", "GLM", " Glm "),  # the user's own, under what is elsewhere an alias of zai
    "house": ("house", "Our House", "haus"),
    "ollama": ("ollama", "Ollama"),
}
WITH_LOGINS = ("openai-codex", "nous")
STRATEGIES = {  # whoever is not named here takes the first: that is the order which can be judged
    "gemini": Strategy.RANDOM,
    "together": Strategy.RANDOM,
    "moonshot": Strategy.LEAST_USED,  # this and the next count uses in the ledger, which is slow
    "mistral": Strategy.ROUND_ROBIN,
}
KEYLESS = "ollama"
OWN = ("glm", "house")
CUSTOM = ("Local One", "local.two", "Team")


@dataclass(frozen=True, slots=True)
class Holder:
    """One credential: a key in a variable, a login, or nothing at all. `group` is the user's word, or None.

    `unsure` says that it may stand aside although nothing closes it: its variable is unset at times, a twin
    before it has the same secret, or it is a login on which a refresh was not possible.
    """

    label: str
    variable: str | None = None
    login: bool = False
    group: str | None = None
    unsure: bool = False

    @property
    def quota_group(self) -> str:
        """The group that the database is to know it by."""
        return self.group or f"credential:{self.label}"


@dataclass(frozen=True, slots=True)
class Account:
    """One provider under its canonical name, with every spelling that means it."""

    name: str
    spellings: tuple[str, ...]
    base_url: str
    holders: tuple[Holder, ...]
    strategy: Strategy = Strategy.FILL_FIRST
    max_concurrency: int | None = None
    token_url: str | None = None
    custom: str | None = None

    def holder(self, label: str) -> Holder:
        """Return one of its credentials; raises KeyError for a label that is not its own."""
        return {each.label: each for each in self.holders}[label]


@dataclass(slots=True)
class World:
    """All accounts, the variables with today's secrets, and every secret that each variable can ever have."""

    accounts: dict[str, Account]
    vintages: dict[str, tuple[str, ...]]
    flaky: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)

    def secrets_of(self, account: Account, holder: Holder) -> tuple[str, ...]:
        """Return every secret that a key may have been at any time."""
        return self.vintages[holder.variable] if holder.variable else ()

    def lonely(self) -> Iterator[str]:
        """Yield the accounts that have, or may for a time have, exactly one credential."""
        for account in self.accounts.values():
            if len(account.holders) == 1 or sum(not each.unsure for each in account.holders) <= 1:
                yield account.name


def make_world(seed: int) -> World:
    """Return a world; the same one for the same seed."""
    rng = random.Random(f"world {seed}")
    pool = [f"s{number:03}" for number in range(24)]  # few, so that most are held by several
    world = World({}, {}, ())
    for name, spellings in NAMES.items():
        world.accounts[name] = _account(rng, name, spellings, world, pool)
    world.accounts |= _custom_accounts(rng, world, pool)
    world.flaky = tuple(sorted(variable for variable in world.vintages if variable.endswith("_FLAKY")))
    world.environ |= {variable: secrets[0] for variable, secrets in world.vintages.items()}
    return world


def _account(
    rng: random.Random, name: str, spellings: tuple[str, ...], world: World, pool: list[str]
) -> Account:
    token_url = f"https://auth.example/{name}/token" if name in WITH_LOGINS else None
    return Account(
        name=name,
        spellings=spellings,
        base_url=rng.choice(URLS),
        holders=_holders(rng, name, world, pool),
        strategy=STRATEGIES.get(name, Strategy.FILL_FIRST),
        max_concurrency=rng.choice((None, None, None, 3, 8)),
        token_url=token_url,
    )


def _holders(rng: random.Random, name: str, world: World, pool: list[str]) -> tuple[Holder, ...]:
    if name == KEYLESS:
        return (Holder("none"),)
    if name == "openai-codex":
        return tuple(Holder(label, login=True, group=rng.choice(GROUPS), unsure=True) for label in LABELS[:2])
    labels = LABELS[: rng.choice((1, 1, 2, 2, 2, 3, 4))]
    secrets = rng.sample(pool, k=VINTAGES * len(labels))  # nobody shares within an account, but for twins
    holders = []
    for at, label in enumerate(labels):
        flaky = rng.random() < 0.1
        variable = f"{name}_{label}_KEY".upper().replace("-", "_") + "_FLAKY" * flaky
        twin = at > 0 and rng.random() < 0.15
        world.vintages[variable] = tuple(secrets[VINTAGES * at : VINTAGES * (at + 1)])
        if twin and holders[0].variable:
            world.vintages[variable] = (*world.vintages[holders[0].variable][:1], *world.vintages[variable])
        holders.append(Holder(label, variable, group=rng.choice(GROUPS), unsure=flaky or twin))
    if name == "nous":
        holders.append(Holder("login", login=True, unsure=True))
    return tuple(holders)


def _custom_accounts(rng: random.Random, world: World, pool: list[str]) -> dict[str, Account]:
    """Return inline endpoints: distinct names on one address, all with one key in one variable."""
    world.vintages["CUSTOM_KEY"] = tuple(rng.sample(pool, k=VINTAGES))
    url = rng.choice(URLS)
    found = {}
    for name in CUSTOM:
        canonical = "custom:" + name.lower().replace(" ", "-").replace(".", "-")
        spellings = (canonical, f"Custom:{name}", canonical.upper())
        holder = Holder("key", "CUSTOM_KEY")
        found[canonical] = Account(canonical, spellings, url, (holder,), custom=name)
    return found


def register(world: World, rng: random.Random) -> Registry:
    """Return the registry of the product, told of every account under one of its spellings."""
    registry = Registry()
    for account in world.accounts.values():
        if account.custom is not None:
            registry.add_custom(
                name=account.custom,
                base_url=account.base_url + "/",
                key=SecretReference("env", "CUSTOM_KEY"),
                api_mode=ApiMode.CHAT_COMPLETIONS,
            )
        else:
            own = account.name in OWN
            registry.add(account.name if own else rng.choice(account.spellings), _row(account, new=own))
    return registry


def _row(account: Account, *, new: bool) -> ProviderRow:
    own_aliases = account.spellings[1:] if account.name == "house" else ()
    return ProviderRow(
        base_url=account.base_url,
        auth="none" if account.name == KEYLESS else "key",
        aliases=own_aliases,
        strategy=account.strategy,
        max_concurrency=account.max_concurrency,
        credentials=tuple(_credential(each, account) for each in account.holders if each.label != "none"),
        new=new,
    )


def _credential(holder: Holder, account: Account) -> CredentialRow:
    if holder.login:
        oauth = OAuthRow(token_url=account.token_url, client_id="app")
        return CredentialRow(label=holder.label, oauth=oauth, quota_group=holder.group)
    return CredentialRow(label=holder.label, key=f"env:{holder.variable}", quota_group=holder.group)
