"""Search the web, and read the first page that was found.

With OLLAMA_API_KEY in the environment this asks ollama.com; without, it asks the local server,
which must be signed in (`ollama signin`).
"""

import anyio

from ollama_sc import AsyncClient, AuthorizationError


async def main() -> None:
    async with AsyncClient() as client:
        try:
            found = await client.web_search("structured concurrency", max_results=3)
        except AuthorizationError as error:
            print(f"a key is missing, or a sign-in: {error.signin_url or error}")
            return
        for result in found.results:
            print(f"{result.title}: {result.url}")
        if found.results and found.results[0].url:
            page = await client.web_fetch(found.results[0].url)
            print(f"{page.title}: {len(page.content or '')} characters")


if __name__ == "__main__":
    anyio.run(main)
