/* Every word of the page that is not a model's, by language. */
function count(n, noun) { return `${n} ${noun}${n === 1 ? "" : "s"}`; }
const WORDS = {
  en: {
    title: (p, r) => `${count(p, "picture")}, ${count(r, "region")}`,
    rest: (shown, all) =>
      `This page shows the first ${shown} of ${all} pictures; the results file holds all of them.`,
    failed: (n) => `${count(n, "picture")} could not be perceived.`,
    masks: "Masks", by: "Perceived by", pictures: "Pictures", regions: "Regions", skip: "Skip to the regions",
    caution: "Masks and words are a model's guesses. The smaller the model, the more often they are wrong.",
    keys: ["Pictures", "Regions", "Masks on or off"], unnamed: "No label", nothing: "No regions were found here.",
    failure: "This picture could not be perceived", blank: "There is no picture to show.",
    explanation: "What it is", brief: "In short", detailed: "In detail", text: "Text on it", noText: "No text seen",
    mask: "mask", stable: "stable", area: (p) => `covers ${p}`, copy: "Copy JSON", copied: "Copied",
    notCopied: "Could not copy", score: (p) => `${p} sure of the label`,
    phases: {}, of: (i, n) => `${i} of ${n}`, count: (n) => count(n, "region"),
  },
  zh: {
    title: (p, r) => `${p} 张图片，${r} 个区域`,
    rest: (shown, all) => `本页只显示全部 ${all} 张图片中的前 ${shown} 张；结果文件包含全部图片。`,
    failed: (n) => `${n} 张图片未能识别。`,
    masks: "掩膜", by: "识别模型", pictures: "图片", regions: "区域", skip: "跳到区域列表",
    caution: "掩膜和文字都是模型的推测；模型越小，出错越多。",
    keys: ["切换图片", "切换区域", "显示或隐藏掩膜"], unnamed: "无标签", nothing: "这里没有找到区域。",
    failure: "这张图片未能识别", blank: "没有可显示的图片。",
    explanation: "这是什么", brief: "简述", detailed: "详述", text: "上面的文字", noText: "未见文字",
    mask: "掩膜", stable: "稳定性", area: (p) => `占 ${p}`, copy: "复制 JSON", copied: "已复制",
    notCopied: "复制失败", score: (p) => `标签把握 ${p}`,
    phases: { read: "读取", embed: "编码", propose: "查找", segment: "分割", describe: "描述", total: "合计" },
    of: (i, n) => `${n} 张中的第 ${i} 张`, count: (n) => `${n} 个区域`,
  },
};
