/* How Sphinx sorts the results of a search: pages that answer a question come before pages that explain. */

var Scorer = {
  /** Return the score of a result: [page, title, anchor, description, score, file]. */
  score: (result) => {
    const [page, , , , score] = result;
    const weights = [
      ["usage/backends/matrix", 10],
      ["how-to/troubleshooting", 9],
      ["usage/", 6],
      ["how-to/", 4],
      ["tutorials/", 3],
      ["explanation/decisions/", -8],
      ["explanation/", -2],
      ["reference/api", -2],
      ["changelog", -8],
    ];
    const found = weights.find(([start]) => page.startsWith(start));
    return score + (found ? found[1] : 0);
  },

  // The weights below are those of Sphinx.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
