// What each task asks for, sends and shows. A task of the server that is missing here is not offered.

import { bars, cards, heatMap, markedText } from "./views.js";

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/**
 * Tasks by the name that /v1/models gives them.
 *   label: on its button; hint: what it does; question, texts: labels of the two inputs, question only where there is one
 *   example: [question, texts]; path and body: the request; view: elements for an answer
 */
export const TASKS = {
  embed: {
    label: "Similarity",
    hint: "Compares every text with every other: the cosine of their embeddings.",
    texts: "Texts, one per line",
    example: ["", "My card still has not arrived.\nWhere is my new card?\nHow do I change my PIN?\nI forgot my PIN.\nWhat a lovely day!"],
    path: "v1/embeddings",
    body: (_, texts) => ({ input: lines(texts), encoding_format: "float" }),
    view: (answer, _, texts) => [heatMap(lines(texts), answer.data.map((item) => item.embedding))],
  },
  classify: {
    label: "Classes",
    hint: "Gives every text the probability of each class.",
    texts: "Texts, one per line",
    example: ["", "My card still has not arrived.\nHow do I change my PIN?"],
    path: "v1/classify",
    body: (_, texts) => ({ input: lines(texts), top_k: 10 }),
    view: (answer, _, texts) => cards(lines(texts), answer.data, (item) => bars(Object.entries(item.scores))),
  },
  tag: {
    label: "Spans",
    hint: "Finds names and other spans in each text.",
    texts: "Texts, one per line",
    example: ["", "Ada Lovelace met Charles Babbage in London.\n안녕하세요, Kim works at Naver in Seoul."],
    path: "v1/tag",
    body: (_, texts) => ({ input: lines(texts) }),
    view: (answer, _, texts) => answer.data.map((item) => markedText(lines(texts)[item.index], item.spans)),
  },
  answer: {
    label: "Answers",
    hint: "Finds the parts of a context that answer a question.",
    question: "Question",
    texts: "Context",
    example: ["When was the bridge opened?", "The bridge was designed in 1928. It was opened by the mayor on 19 March 1932."],
    path: "v1/answer",
    body: (question, context) => ({ question, context, n_best: 3 }),
    view: (answer, _, context) => answer.data.flatMap(({ answers }) => [
      markedText(context, answers.slice(0, 1)),
      bars(answers.map(({ text, score }) => [text, score])),
    ]),
  },
  rank: {
    label: "Ranking",
    hint: "Puts documents in the order of their scores for a query.",
    question: "Query",
    texts: "Documents, one per line",
    example: ["Where is my card?", "How do I change my PIN?\nYour card arrives within five days.\nThe weather is lovely."],
    path: "v1/rerank",
    body: (query, texts) => ({ query, documents: lines(texts) }),
    view: (answer, _, texts) => [bars(answer.results.map((item) => [lines(texts)[item.index], item.relevance_score]))],
  },
};
