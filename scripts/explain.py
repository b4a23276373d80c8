"""Says which run a run really is, what course it will take, what would repair it."""

from jaxmlp.commands.explain import main

if __name__ == "__main__":
    main()
