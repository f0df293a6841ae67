/* Owns the best-known coins, read from Pluto's own file when someone begins to type: a code or a name and what it is tracked
   as. Never asks anyone else, and offers nothing where the file can't be had. */

const FILE = "/static/coins.json";

class Coins {
  #all = []; // {code, name, tickers}, the best-known first
  #loading = null;

  /** True once, when they have just come. */
  load() {
    if (this.#loading) return Promise.resolve(false);
    this.#loading = this.#read();
    return this.#loading;
  }

  async #read() {
    try {
      const { coins } = await (await fetch(FILE)).json();
      this.#all = coins;
      return true;
    } catch {
      this.#loading = null;
      return false;
    }
  }

  /** Is this upper-case text a code or a name? */
  has(text) {
    return this.#all.some(({ code, name }) => code === text || name.toUpperCase() === text);
  }

  /** {ticker, name} of coins that begin like this upper-case text: by their code, then by their name. */
  matches(text) {
    const byCode = this.#all.filter(({ code }) => code.startsWith(text)).sort((a, b) => (b.code === text) - (a.code === text));
    const byName = this.#all.filter(({ code, name }) => !code.startsWith(text) && name.toUpperCase().startsWith(text));
    return [...byCode, ...byName].flatMap(({ name, tickers }) => tickers.map((ticker) => ({ ticker, name })));
  }
}

export const coins = new Coins();
