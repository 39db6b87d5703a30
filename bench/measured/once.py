"""What cron would start for one call: a fresh python, the SDK imported, one client: `once.py URL`."""

import sys

from openai import OpenAI

from bench.provider import MODEL

if __name__ == "__main__":
    client = OpenAI(api_key="sk-bench", base_url=sys.argv[1], max_retries=0)
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Summarise."}])
    assert answer.choices[0].message.content
